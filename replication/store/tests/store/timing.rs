use crate::rig::*;
#[test]
fn timing() {
    let t = std::time::Instant::now();
    let p = pool();
    eprintln!("pool {:?}", t.elapsed());
    let d = Disk::new(4096, (128 << 10) + (1 << 20) + (8 << 20));
    eprintln!("disk {:?}", t.elapsed());
    format(&d, &p, options(1 << 20)).unwrap();
    eprintln!("format {:?}", t.elapsed());
    let m = mount(&d, &p, 40).unwrap();
    eprintln!("mount {:?}", t.elapsed());
    drop(m);
    check_disk(&d, &p, false);
    eprintln!("check {:?}", t.elapsed());
}
