//! The file that the keys of session tickets are derived from: read at the start, and again when it changes.

use crate::tls::TicketKeys;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{error, info};

/// How often the file is looked at. It holds one line; reading it costs nothing.
const LOOK: Duration = Duration::from_secs(5);
/// What is larger is another file.
const MOST: usize = 64 << 10;

/// Shares the keys that a file holds, for as long as the process runs. A file that cannot be used leaves in use what
/// was, and is told once.
pub(super) async fn follow(file: PathBuf, keys: Arc<TicketKeys>) {
    let mut told = None;
    loop {
        let shared = match tokio::fs::read(&file).await {
            Ok(text) if text.len() <= MOST => keys.share(&text).map_err(|error| error.to_string()),
            Ok(_) => Err("it is too large".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        match shared {
            Ok(is_new) => {
                told = None;
                if is_new {
                    info!("session tickets are shared by {}", file.display());
                }
            }
            Err(fault) if told.as_ref() != Some(&fault) => {
                let file = file.display();
                error!("session tickets are not shared by {file}, it is looked at again: {fault}");
                told = Some(fault);
            }
            Err(_) => {}
        }
        sleep(LOOK).await;
    }
}
