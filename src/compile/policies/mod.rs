//! Objects that attach to others by `targetRefs`: one file for each kind. After `compile` they are gone, and what
//! they ask for is part of what they attached to.

mod backend_tls;

pub(super) use backend_tls::{BackendTlsPolicies, Target};
