//! How much memory the process has, as the kernel tells it.

use std::fs;
use std::hint::black_box;

/// More than fits into a page that the allocator shares among blocks.
const LARGE_BLOCK: usize = 4 << 20;

/// Has memory that was free for a second given back to the system. mimalloc looks for such memory when a page of its own
/// becomes free, which does not happen in a process that waits.
pub fn give_back() {
    drop(black_box(Vec::<u8>::with_capacity(LARGE_BLOCK)));
}

/// Memory of this process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// What was allocated and touched. The allocator would slow every allocation down to know it exactly.
    pub anonymous: u64,
    /// All that is in physical memory, the program's code included.
    pub resident: u64,
}

impl Memory {
    /// The memory of this moment; zero where the kernel does not tell.
    pub fn now() -> Self {
        fs::read_to_string("/proc/self/status").map(|status| Self::parse(&status)).unwrap_or_default()
    }

    fn parse(status: &str) -> Self {
        let kibibytes = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        };
        let bytes = |field: &str| kibibytes(field).unwrap_or(0).saturating_mul(1024);
        Self { anonymous: bytes("RssAnon:"), resident: bytes("VmRSS:") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_status_is_read() {
        let status = "Name:\ttrigate\nVmRSS:\t    5000 kB\nRssAnon:\t     300 kB\nRssFile:\t 4 kB\n";
        assert_eq!(Memory::parse(status), Memory { anonymous: 300 * 1024, resident: 5000 * 1024 });
        assert_eq!(Memory::parse("VmRSS: many kB\nRssAnon: 1\n"), Memory::default());
    }

    #[test]
    fn this_process_has_memory() {
        let memory = Memory::now();
        assert!(memory.anonymous > 0 && memory.resident >= memory.anonymous, "{memory:?}");
    }
}
