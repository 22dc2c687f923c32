//! Clusters and their endpoints as Envoy's `/clusters` lists them: `cluster::address::key::value`.

use crate::upstream::{Address, Cluster};
use std::fmt::{self, Display, Write};

/// The lines of one cluster.
pub fn list(cluster: &Cluster, text: &mut String) {
    let name = cluster.name();
    let mut line = |parts: fmt::Arguments<'_>| {
        writeln!(text, "{name}::{parts}").expect("a string takes everything");
    };
    line(format_args!("observability_name::{name}"));
    line(format_args!("added_via_api::true"));
    for (index, backend) in cluster.backends().iter().enumerate() {
        for endpoint in backend.endpoints.all().iter() {
            let address = Shown(&endpoint.address);
            let mut fact = |key: &str, value: &dyn Display| {
                line(format_args!("{address}::{key}::{value}"));
            };
            fact("rq_active", &endpoint.active());
            fact("hostname", &"");
            fact("health_flags", &"healthy");
            fact("weight", &1);
            // Envoy Gateway makes a locality of each backend, and this is its name.
            fact("region", &format_args!("{name}/backend/{index}"));
            fact("zone", &"");
            fact("sub_zone", &"");
            fact("canary", &false);
            fact("priority", &0);
            // There is no outlier detection that would know one.
            fact("success_rate", &-1);
            fact("local_origin_success_rate", &-1);
        }
    }
}

/// An address as Envoy prints it.
struct Shown<'a>(&'a Address);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Address::Ip(address) => address.fmt(f),
            Address::Unix(path) => path.display().fmt(f),
        }
    }
}
