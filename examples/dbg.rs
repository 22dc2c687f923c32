use trigate::{compile::*, routing::GatewayId, source::Files};
fn main() {
    let p: Vec<_> = std::env::args().skip(1).map(Into::into).collect();
    let t = std::time::Instant::now();
    let s = Files::new(p).read();
    eprintln!("read {:?}", t.elapsed());
    let b: Vec<_> = s
        .gateways
        .iter()
        .enumerate()
        .map(|(i, e)| Binding {
            id: GatewayId(i as u16),
            name: e.object.metadata.name.to_string(),
            namespace: e.object.metadata.namespace.to_string(),
            object: e.object.metadata.name.to_string(),
        })
        .collect();
    let t = std::time::Instant::now();
    let c = compile(&s, &b);
    eprintln!("compile {:?}", t.elapsed());
    print!("{}", c.dump());
}
