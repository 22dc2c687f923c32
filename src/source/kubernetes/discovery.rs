//! Which of the kinds that can be missing are installed, and in which version.

use super::backoff::{Backoff, jittered};
use super::kinds::{Kind, Plural, kinds};
use crate::resource::{ENVOY_GATEWAY_GROUP, GATEWAY_GROUP};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroup, APIResourceList};
use kube::Client;
use kube::api::ApiResource;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// How often to ask while a kind is missing: somebody may be about to install it.
const SOON: Duration = Duration::from_secs(5);
/// How often to ask when all kinds are there. A watch tells by itself when its kind vanishes.
const SELDOM: Duration = Duration::from_secs(300);
/// How long to wait after a watch failed because its kind vanished: others follow.
const SETTLING: Duration = Duration::from_millis(100);

/// The kinds that are installed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Installed(BTreeMap<(&'static str, &'static str), ApiResource>);

impl Installed {
    /// How to ask for objects of this kind; `None` when it is missing.
    pub fn resource(&self, kind: &Kind) -> Option<ApiResource> {
        match kind.plural {
            Plural::BuiltIn(plural) => Some(resource(kind, kind.versions[0], plural)),
            Plural::Installed => self.0.get(&(kind.group, kind.kind)).cloned(),
        }
    }
}

/// Keeps `found` up to date for ever; `None` until the API server has answered once.
pub(super) async fn discover(
    client: Client,
    found: watch::Sender<Option<Arc<Installed>>>,
    again: Arc<Notify>,
) {
    let mut backoff = Backoff::default();
    loop {
        let pause = match ask(&client).await {
            Ok(installed) => {
                backoff.reset();
                let missing = kinds().any(|kind| installed.resource(kind).is_none());
                tell(&found, installed);
                if missing { SOON } else { SELDOM }
            }
            Err(error) => {
                let pause = backoff.next();
                warn!(
                    "cannot ask the API server which kinds are installed, next try in {pause:.1?}: {error}"
                );
                pause
            }
        };
        if timeout(jittered(pause), again.notified()).await.is_ok() {
            sleep(SETTLING).await;
        }
    }
}

fn tell(found: &watch::Sender<Option<Arc<Installed>>>, installed: Installed) {
    found.send_if_modified(|before| {
        if before.as_deref() == Some(&installed) {
            return false;
        }
        let missing: Vec<&str> = kinds()
            .filter(|kind| kind.group == GATEWAY_GROUP && installed.resource(kind).is_none())
            .map(|kind| kind.kind)
            .collect();
        if !missing.is_empty() {
            info!(
                "not installed in this cluster: {}; they are watched as soon as they are",
                missing.join(", ")
            );
        }
        *before = Some(Arc::new(installed));
        true
    });
}

async fn ask(client: &Client) -> kube::Result<Installed> {
    let mut installed = BTreeMap::new();
    for group in [GATEWAY_GROUP, ENVOY_GATEWAY_GROUP] {
        let Some(versions) = get::<APIGroup>(client, group).await? else { continue };
        let mut served = BTreeMap::new();
        for version in versions.versions {
            if let Some(list) = get::<APIResourceList>(client, &version.group_version).await? {
                served.insert(version.version, list);
            }
        }
        for kind in kinds().filter(|kind| kind.group == group && kind.is_installed()) {
            if let Some(resource) = best(kind, &served) {
                installed.insert((kind.group, kind.kind), resource);
            }
        }
    }
    Ok(Installed(installed))
}

/// The best version of a kind that is served.
fn best(kind: &Kind, served: &BTreeMap<String, APIResourceList>) -> Option<ApiResource> {
    kind.versions.iter().find_map(|version| {
        let list = served.get(*version)?;
        // Subresources have the kind of their object, and a slash in their name.
        let found = list.resources.iter().find(|one| one.kind == kind.kind && !one.name.contains('/'))?;
        Some(resource(kind, version, &found.name))
    })
}

fn resource(kind: &Kind, version: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: kind.group.to_owned(),
        version: version.to_owned(),
        api_version: kind.api_version(version),
        kind: kind.kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// What stands under `/apis/`; `None` when there is no such thing.
async fn get<T: serde::de::DeserializeOwned>(client: &Client, path: &str) -> kube::Result<Option<T>> {
    let request = http::Request::get(format!("/apis/{path}")).body(Vec::new());
    match client.request(request.map_err(kube::Error::HttpError)?).await {
        Ok(found) => Ok(Some(found)),
        // Of a group that nobody serves the API server says so in plain text, without a reason.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}
