//! The file source over a real file system: what is read, what is watched, and what a broken file keeps.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::time::timeout;
use trigate::resource::{Severity, Snapshot};
use trigate::source::Files;

const LONG: Duration = Duration::from_secs(10);

fn route(name: &str, host: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: {name}\nspec:\n  hostnames: [{host}]\n"
    )
}

fn files(folder: &TempDir) -> Files {
    Files::new(vec![folder.path().to_owned()])
}

/// `name@host` of all routes.
fn routes(snapshot: &Snapshot) -> Vec<String> {
    let words = |entry: &trigate::resource::Entry<trigate::resource::HttpRoute>| {
        format!("{}@{}", entry.object.metadata.name, entry.object.spec.hostnames[0])
    };
    snapshot.http_routes.iter().map(words).collect()
}

fn messages(snapshot: &Snapshot) -> Vec<String> {
    snapshot.diagnostics.iter().map(ToString::to_string).collect()
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
    fs::write(folder.join(name), text).unwrap();
}

#[test]
fn folders_are_read_to_their_depths_and_hidden_names_are_passed_over() {
    let folder = TempDir::new().unwrap();
    write(folder.path(), "a.yaml", &route("a", "a.test"));
    write(folder.path(), "deep/er/b.yml", &format!("{}---\n{}", route("b", "b.test"), route("c", "c.test")));
    write(
        folder.path(),
        "d.json",
        r#"{"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","metadata":{"name":"d"},"spec":{"hostnames":["d.test"]}}"#,
    );
    write(folder.path(), ".a.yaml.swp", &route("swap", "swap.test"));
    write(folder.path(), ".git/x.yaml", &route("git", "git.test"));
    write(folder.path(), "notes.txt", "not: yaml: at all");
    std::os::unix::fs::symlink(folder.path(), folder.path().join("circle")).unwrap();
    let snapshot = files(&folder).read();
    assert_eq!(routes(&snapshot), ["a@a.test", "b@b.test", "c@c.test", "d@d.test"]);
    assert_eq!(messages(&snapshot), Vec::<String>::new());
    let place = snapshot.http_routes.get("default", "c").unwrap().place.as_ref().unwrap();
    assert_eq!((place.line, place.column), (8, 1), "{place}");
    assert!(place.file.ends_with("deep/er/b.yml"), "{place}");
}

#[test]
fn a_path_that_does_not_exist_is_one_diagnostic_and_hides_no_other() {
    let folder = TempDir::new().unwrap();
    write(folder.path(), "a.yaml", &route("a", "a.test"));
    let snapshot = Files::new(vec![folder.path().join("missing"), folder.path().join("a.yaml")]).read();
    assert_eq!(routes(&snapshot), ["a@a.test"]);
    let [only] = &*snapshot.diagnostics else { panic!("{:?}", messages(&snapshot)) };
    assert_eq!(only.severity, Severity::Error);
    assert!(only.message.contains("no such file"), "{only}");
}

#[test]
fn a_document_that_did_not_change_is_not_read_again() {
    let folder = TempDir::new().unwrap();
    write(folder.path(), "a.yaml", &format!("{}---\n{}", route("a", "a.test"), route("b", "b.test")));
    let mut files = files(&folder);
    let before = files.read();
    write(
        folder.path(),
        "a.yaml",
        &format!("# moved\n{}---\n{}", route("a", "new.test"), route("b", "b.test")),
    );
    let after = files.read();
    assert_eq!(routes(&after), ["a@new.test", "b@b.test"]);
    let object = |snapshot: &Snapshot| snapshot.http_routes.get("default", "b").unwrap().object.clone();
    assert!(Arc::ptr_eq(&object(&before), &object(&after)));
    assert_eq!(after.http_routes.get("default", "b").unwrap().place.as_ref().unwrap().line, 9);
}

#[test]
fn a_broken_document_keeps_its_last_good_object_and_says_so() {
    let folder = TempDir::new().unwrap();
    let good = format!("{}---\n{}", route("a", "a.test"), route("b", "b.test"));
    write(folder.path(), "a.yaml", &good);
    let mut files = files(&folder);
    files.read();
    for broken in ["kind: HTTPRoute\nmetadata: {name: b\n", &route("b", "{no: list}"), ""] {
        let text = format!("{}---\n{broken}", route("a", "new.test"));
        write(folder.path(), "a.yaml", &text);
        let snapshot = files.read();
        if broken.is_empty() {
            assert_eq!(routes(&snapshot), ["a@new.test"], "a document that is gone is gone");
        } else {
            assert_eq!(routes(&snapshot), ["a@new.test", "b@b.test"], "{broken}");
            let [only] = &*messages(&snapshot) else { panic!("{:?}", messages(&snapshot)) };
            assert!(only.contains("stay as they were"), "{only}");
        }
    }
    write(folder.path(), "a.yaml", &good);
    let snapshot = files.read();
    assert_eq!(routes(&snapshot), ["a@a.test", "b@b.test"]);
    assert_eq!(messages(&snapshot), Vec::<String>::new());
}

#[test]
fn a_file_that_becomes_unreadable_keeps_its_last_good_content_and_says_so() {
    let folder = TempDir::new().unwrap();
    write(folder.path(), "a.yaml", &route("a", "a.test"));
    let mut files = files(&folder);
    files.read();
    fs::write(folder.path().join("a.yaml"), b"kind: \xff\xfe").unwrap();
    let snapshot = files.read();
    assert_eq!(routes(&snapshot), ["a@a.test"]);
    let [only] = &*messages(&snapshot) else { panic!("{:?}", messages(&snapshot)) };
    assert!(only.contains("no UTF-8") && only.contains("still served"), "{only}");
    write(folder.path(), "a.yaml", &route("a", "new.test"));
    let snapshot = files.read();
    assert_eq!(routes(&snapshot), ["a@new.test"]);
    assert_eq!(messages(&snapshot), Vec::<String>::new());
}

#[test]
fn a_configured_folder_that_vanishes_keeps_its_content_and_says_so() {
    let folder = TempDir::new().unwrap();
    write(folder.path(), "in/a.yaml", &route("a", "a.test"));
    let mut files = Files::new(vec![folder.path().join("in")]);
    files.read();
    fs::rename(folder.path().join("in"), folder.path().join("away")).unwrap();
    let snapshot = files.read();
    assert_eq!(routes(&snapshot), ["a@a.test"]);
    assert!(messages(&snapshot)[0].contains("no such file"), "{:?}", messages(&snapshot));
}

/// How a file changes, the change, and the routes after it.
type Change<'a> = (&'a str, Box<dyn Fn() + 'a>, &'a [&'a str]);

#[tokio::test]
async fn a_change_is_seen_within_a_tenth_of_a_second_however_it_is_made() {
    let folder = TempDir::new().unwrap();
    write(folder.path(), "sub/a.yaml", &route("a", "a.test"));
    let mut files = files(&folder);
    files.read();
    // The first call begins to watch; nothing has changed since.
    assert!(timeout(Duration::from_millis(100), files.changed()).await.is_err());
    let root = folder.path().to_owned();
    let changes: [Change<'_>; 5] = [
        (
            "written in place",
            Box::new(|| write(&root, "sub/a.yaml", &route("a", "one.test"))),
            &["a@one.test"],
        ),
        (
            "replaced by rename",
            Box::new(|| {
                write(&root, "sub/.a.tmp", &route("a", "two.test"));
                fs::rename(root.join("sub/.a.tmp"), root.join("sub/a.yaml")).unwrap();
            }),
            &["a@two.test"],
        ),
        (
            "added in a new folder",
            Box::new(|| write(&root, "new/b.yaml", &route("b", "b.test"))),
            &["a@two.test", "b@b.test"],
        ),
        (
            "changed in the new folder",
            Box::new(|| write(&root, "new/b.yaml", &route("b", "b2.test"))),
            &["a@two.test", "b@b2.test"],
        ),
        ("removed", Box::new(|| fs::remove_file(root.join("sub/a.yaml")).unwrap()), &["b@b2.test"]),
    ];
    let mut quickest = LONG;
    for (how, change, want) in changes {
        // The watcher of a new folder needs a moment, as it would between two edits of a person.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let started = Instant::now();
        change();
        let mut snapshot = timeout(LONG, files.changed()).await.unwrap_or_else(|_| panic!("{how}: not seen"));
        quickest = quickest.min(started.elapsed());
        while routes(&snapshot) != want {
            snapshot = timeout(LONG, files.changed())
                .await
                .unwrap_or_else(|_| panic!("{how}: {:?}", routes(&snapshot)));
        }
    }
    // Of several, because a machine that runs other tests as well may be late now and then.
    assert!(quickest < Duration::from_millis(100), "seen after {quickest:?}");
}

#[tokio::test]
async fn a_config_map_mount_is_followed_when_kubelet_swaps_it() {
    use std::os::unix::fs::symlink;
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    write(root, "..1/routes.yaml", &route("a", "one.test"));
    symlink("..1", root.join("..data")).unwrap();
    symlink("..data/routes.yaml", root.join("routes.yaml")).unwrap();
    let mut files = files(&folder);
    assert_eq!(routes(&files.read()), ["a@one.test"]);
    assert!(timeout(Duration::from_millis(100), files.changed()).await.is_err());
    write(root, "..2/routes.yaml", &route("a", "two.test"));
    symlink("..2", root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    let snapshot = timeout(LONG, files.changed()).await.expect("the swap is seen");
    assert_eq!(routes(&snapshot), ["a@two.test"]);
}

#[tokio::test]
async fn a_file_caught_half_written_is_given_a_moment() {
    let folder = TempDir::new().unwrap();
    write(folder.path(), "a.yaml", &route("a", "a.test"));
    let mut files = files(&folder);
    files.read();
    assert!(timeout(Duration::from_millis(100), files.changed()).await.is_err());
    let path = folder.path().join("a.yaml");
    fs::write(&path, "").unwrap();
    let writer = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        fs::write(&path, route("a", "new.test")).unwrap();
    });
    let snapshot = timeout(LONG, files.changed()).await.expect("the change is seen");
    writer.await.unwrap();
    assert_eq!(routes(&snapshot), ["a@new.test"], "never the empty file");
}
