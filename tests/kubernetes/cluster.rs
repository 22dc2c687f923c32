//! A real API server for tests, and the objects in it.

#![allow(dead_code, reason = "the benchmark uses a part of it")]

use crate::harness::{PATIENCE, eventually};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Long enough to build the API server when nobody has before.
const BUILD: Duration = Duration::from_secs(1800);

/// A running API server. It ends with this process.
pub struct Cluster {
    pub kubeconfig: PathBuf,
    starter: u32,
    ready: Receiver<PathBuf>,
    _child: Child,
    _stdin: ChildStdin,
}

/// What one test has to itself in an API server: names that nobody else uses.
pub struct Place {
    pub client: Client,
    pub kubeconfig: PathBuf,
    pub namespace: String,
    pub controller: String,
    pub class: String,
    /// The port of the Service `app`.
    port: AtomicU16,
}

/// The program that starts an API server; `None`, with a word, where it is missing.
fn starter() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/apiserver");
    let starter = std::env::var_os("TRIGATE_APISERVER").map_or(default, PathBuf::from);
    let found = starter.exists() && Command::new("go").arg("version").output().is_ok();
    if !found {
        eprintln!("skipped: Go or {} is missing, so there is no API server", starter.display());
    }
    found.then_some(starter)
}

impl Cluster {
    /// An API server of a test's own.
    pub fn start() -> Option<Self> {
        let mut child = Command::new(starter()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the starter can be run");
        let (sender, ready) = channel();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(path) = line.strip_prefix("ready KUBECONFIG=") {
                    let _ = sender.send(PathBuf::from(path));
                }
            }
        });
        let kubeconfig = ready.recv_timeout(BUILD).expect("the API server starts");
        let stdin = child.stdin.take().expect("piped");
        Some(Self { kubeconfig, starter: child.id(), ready, _child: child, _stdin: stdin })
    }

    /// The API server that tests share which do not harm it.
    pub fn shared() -> Option<PathBuf> {
        static SHARED: OnceLock<Option<std::sync::Mutex<Cluster>>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| Self::start().map(std::sync::Mutex::new)).as_ref()?;
        Some(shared.lock().expect("nobody panics with it").kubeconfig.clone())
    }

    /// Kills the API server as a crash would, and starts it again. Returns at once.
    pub fn crash(&self) {
        let pid = i32::try_from(self.starter).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::USR1).expect("the starter runs");
    }

    /// Waits until the API server is back after a crash.
    pub fn back(&self) {
        self.ready.recv_timeout(PATIENCE * 3).expect("the API server starts again");
    }
}

impl Place {
    /// A place in the shared API server; `None` where there is none.
    pub async fn shared() -> Option<Self> {
        // Building and starting blocks, and there is nothing else to do meanwhile.
        let kubeconfig = tokio::task::spawn_blocking(Cluster::shared).await.expect("it does not panic")?;
        Some(Self::of(&kubeconfig).await)
    }

    /// A place in an API server, with its namespaces and a class.
    pub async fn of(kubeconfig: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        let file = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let client = Client::try_from(config.expect("a kubeconfig that can be used")).expect("a client");
        let place = Self {
            client,
            kubeconfig: kubeconfig.to_owned(),
            namespace: format!("place-{number}"),
            controller: format!("trigate.dev/place-{number}"),
            class: format!("class-{number}"),
            port: AtomicU16::new(80),
        };
        let (namespace, class, controller) = (&place.namespace, &place.class, &place.controller);
        place
            .apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }))
            .await;
        place
            .apply(&json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
                "metadata": { "name": class }, "spec": { "controllerName": controller },
            }))
            .await;
        place
    }

    /// A class of another controller.
    pub async fn class_of_somebody_else(&self) -> String {
        let name = format!("{}-theirs", self.class);
        let spec = json!({ "controllerName": "example.com/other" });
        self.apply(&json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
            "metadata": { "name": name }, "spec": spec,
        }))
        .await;
        name
    }

    fn api(&self, object: &Value) -> Api<DynamicObject> {
        let (group, version) = match object["apiVersion"].as_str().expect("an apiVersion").split_once('/') {
            Some((group, version)) => (group, version),
            None => ("", object["apiVersion"].as_str().expect("an apiVersion")),
        };
        let kind = object["kind"].as_str().expect("a kind");
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// Writes an object as `kubectl apply` does.
    pub async fn apply(&self, object: &Value) -> DynamicObject {
        self.try_apply(object).await.unwrap_or_else(|error| panic!("{error}: {object}"))
    }

    pub async fn try_apply(&self, object: &Value) -> kube::Result<DynamicObject> {
        let name = object["metadata"]["name"].as_str().expect("a name");
        let parameters = PatchParams::apply("test").force();
        self.api(object).patch(name, &parameters, &Patch::Apply(object)).await
    }

    /// Has the API server check an object in full, unknown fields included, without keeping it.
    pub async fn dry_run(&self, object: &Value) -> kube::Result<DynamicObject> {
        let name = object["metadata"]["name"].as_str().expect("a name");
        let parameters = PatchParams::apply("test").force().dry_run().validation_strict();
        self.api(object).patch(name, &parameters, &Patch::Apply(object)).await
    }

    /// Writes to the status of an object.
    pub async fn patch_status(&self, object: &Value, status: &Value) {
        self.try_patch_status(object, status).await.expect("a status");
    }

    pub async fn try_patch_status(&self, object: &Value, status: &Value) -> kube::Result<DynamicObject> {
        let name = object["metadata"]["name"].as_str().expect("a name");
        let patch = Patch::Merge(json!({ "status": status }));
        self.api(object).patch_status(name, &PatchParams::default(), &patch).await
    }

    /// A kubeconfig of the service account `trigate` of this place, who may do what the documents grant.
    pub async fn service_account(&self, file: &Path, documents: &[Value]) {
        let name = json!({ "name": "trigate", "namespace": self.namespace });
        self.apply(&json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": name })).await;
        for document in documents {
            let mut document = document.clone();
            let kind = document["kind"].as_str().unwrap_or_default().to_owned();
            match kind.as_str() {
                "Role" | "RoleBinding" => document["metadata"]["namespace"] = self.namespace.clone().into(),
                // They have no namespace, and other tests have others.
                "ClusterRole" | "ClusterRoleBinding" => {
                    document["metadata"]["name"] = format!("trigate-{}", self.namespace).into();
                }
                _ => continue,
            }
            if kind.ends_with("Binding") {
                document["subjects"][0]["namespace"] = self.namespace.clone().into();
                if kind == "ClusterRoleBinding" {
                    document["roleRef"]["name"] = format!("trigate-{}", self.namespace).into();
                }
            }
            self.apply(&document).await;
        }
        let token = file.with_extension("token");
        self.write_token(&token).await;
        let text = std::fs::read_to_string(&self.kubeconfig).expect("it can be read");
        let mut config: Value = serde_saphyr::from_str(&text).expect("it is YAML");
        for user in config["users"].as_array_mut().expect("there are users") {
            user["user"] = json!({ "tokenFile": token });
        }
        std::fs::write(file, config.to_string()).expect("the folder is ours");
    }

    /// Writes a token of the service account `trigate` to a file, as the kubelet does now and then.
    pub async fn write_token(&self, file: &Path) {
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), &self.namespace);
        let request = TokenRequest::default();
        let token = accounts.create_token_request("trigate", &PostParams::default(), &request).await;
        let token = token.expect("a token").status.expect("it is made").token;
        std::fs::write(file, token).expect("the folder is ours");
    }

    /// Removes an object.
    pub async fn delete(&self, object: &Value) {
        let name = object["metadata"]["name"].as_str().expect("a name");
        self.api(object).delete(name, &DeleteParams::default()).await.expect("it was there");
    }

    /// An object as the API server has it.
    pub async fn get(&self, object: &Value) -> Option<Value> {
        let name = object["metadata"]["name"].as_str().expect("a name");
        let found = self.api(object).get_opt(name).await.expect("the API server answers");
        found.map(|found| serde_json::to_value(found).expect("it came as JSON"))
    }

    /// What `kubectl get` shows of a Gateway, by column.
    pub async fn row(&self, gateway: &Value) -> Value {
        let name = gateway["metadata"]["name"].as_str().expect("a name");
        let path =
            format!("/apis/gateway.networking.k8s.io/v1/namespaces/{}/gateways/{name}", self.namespace);
        let request = http::Request::get(path)
            .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
            .body(Vec::new());
        let table: Value = self.client.request(request.expect("a request")).await.expect("a table");
        let columns = table["columnDefinitions"].as_array().expect("columns").iter();
        let cells = table["rows"][0]["cells"].as_array().expect("a row").iter().cloned();
        columns.map(|column| column["name"].as_str().expect("a name").to_owned()).zip(cells).collect()
    }

    /// Waits until an object looks as it should.
    pub async fn until(&self, object: &Value, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let is_so = &is_so;
        let ask = || async move { self.get(object).await.filter(|found| is_so(found)) };
        let found = tokio::time::timeout(PATIENCE, eventually(what, ask)).await;
        match found {
            Ok((found, _)) => found,
            Err(_) => panic!("{what}: {:#?}", self.get(object).await),
        }
    }

    /// An HTTPRoute of this place to the Service `app`, at its Gateway.
    pub fn route(&self, name: &str, gateway: &str, host: &str) -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": { "name": name, "namespace": self.namespace },
            "spec": {
                "parentRefs": [{ "name": gateway }], "hostnames": [host],
                "rules": [{ "backendRefs": [{ "name": "app", "port": self.port.load(Relaxed) }] }],
            },
        })
    }

    /// A Gateway of this place with one HTTP listener.
    pub fn gateway(&self, name: &str) -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": { "name": name, "namespace": self.namespace },
            "spec": {
                "gatewayClassName": self.class,
                "listeners": [{ "name": "http", "port": 80, "protocol": "HTTP" }],
            },
        })
    }

    /// The Service `app`, which leads to a port of this machine. EndpointSlices may not hold loopback addresses.
    pub fn app(&self, port: u16) -> Value {
        self.port.store(port, Relaxed);
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "app", "namespace": self.namespace },
            "spec": {
                "type": "ExternalName", "externalName": "localhost",
                "ports": [{ "port": port, "protocol": "TCP" }],
            },
        })
    }
}

/// The condition of this type in a list of them.
pub fn condition<'v>(conditions: &'v Value, kind: &str) -> Option<&'v Value> {
    conditions.as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// `status/reason` of a condition.
pub fn verdict(conditions: &Value, kind: &str) -> String {
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    condition(conditions, kind)
        .map_or_else(String::new, |one| format!("{}/{}", text(one, "status"), text(one, "reason")))
}
