//! What a scanner finds: testssl.sh where it is installed, and the worst of what it looks for with OpenSSL alone.

use crate::harness::manifest::{gateway, https_listener, secret};
use crate::harness::openssl::openssl;
use crate::harness::trigate::{Builder, Trigate};
use std::process::{Command, Stdio};

async fn gateway_for_localhost() -> Trigate {
    let builder = Builder::new().without_gateways();
    let leaf = builder.leaf(&["localhost"]);
    let pair = secret("tls", &leaf.chain_pem, &leaf.key_pem);
    let listener = https_listener("https", 443, "", "tls");
    builder.with(pair).with(gateway("external", &[listener])).start().await
}

#[tokio::test]
async fn what_is_broken_is_not_offered() {
    let trigate = gateway_for_localhost().await;
    for arguments in [
        &["-tls1", "-cipher", "ALL:@SECLEVEL=0"][..],
        &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "kRSA:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "kDHE:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "aNULL:eNULL:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "SHA1:SHA256:SHA384:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "AESCCM"],
    ] {
        let said = openssl(trigate.external.https, arguments);
        assert!(!said.agreed(), "{arguments:?}: {said:?}");
    }
    let said = openssl(trigate.external.https, &["-tls1_2"]);
    for words in ["Secure Renegotiation IS supported", "Compression: NONE", "Extended master secret: yes"] {
        assert!(said.0.contains(words), "{words}: {said:?}");
    }
}

#[tokio::test]
async fn testssl_finds_nothing_worse_than_what_is_not_offered() {
    // Debian's name for it, and its own.
    let named = |name: &&str| {
        let asked = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    };
    let Some(testssl) = ["testssl", "testssl.sh"].into_iter().find(named) else {
        return println!("skipped: testssl.sh is not installed");
    };
    let trigate = gateway_for_localhost().await;
    let folder = tempfile::tempdir().expect("a folder");
    let report = folder.path().join("report.json");
    let address = trigate.external.https;
    let mut scan = Command::new(testssl);
    scan.args(["--quiet", "--color", "0", "--warnings", "off"]);
    scan.args(["--protocols", "--std", "--pfs", "--server-preference"]);
    scan.args(["--ip", &address.ip().to_string(), "--jsonfile"]).arg(&report);
    scan.arg(format!("https://localhost:{}", address.port())).stdout(Stdio::null()).stderr(Stdio::null());
    let scanned = tokio::task::spawn_blocking(move || scan.status()).await.expect("it does not panic");
    let text = std::fs::read_to_string(&report).unwrap_or_else(|error| panic!("{error}: {scanned:?}"));
    let findings: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    let of =
        |id: &str| findings.iter().find(|finding| finding["id"] == id).map(|finding| &finding["severity"]);
    for id in ["SSLv2", "SSLv3", "TLS1_2", "TLS1_3", "cipherlist_STRONG", "PFS", "cipher_order"] {
        assert_eq!(of(id), Some(&"OK".into()), "{id}: {text}");
    }
    let bad = findings.iter().filter(|finding| {
        let severity = finding["severity"].as_str().unwrap_or_default();
        // What testssl says of the machine that it runs on is nobody's fault here.
        !["OK", "INFO"].contains(&severity) && finding["id"] != "engine_problem"
    });
    assert_eq!(bad.collect::<Vec<_>>(), Vec::<&serde_json::Value>::new());
}
