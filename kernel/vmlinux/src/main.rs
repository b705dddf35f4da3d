//! The binary: reads the boot line, opens the devices, starts the kernel.
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let val = |k: &str| args.iter().find_map(|a| a.strip_prefix(k).map(str::to_owned));
    struct L;
    impl log::Log for L {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool { true }
        fn log(&self, r: &log::Record<'_>) { eprintln!("[{}] {}", r.target(), r.args()); }
        fn flush(&self) {}
    }
    log::set_logger(Box::leak(Box::new(L))).ok();
    log::set_max_level(match val("log=").as_deref() { Some("debug") => log::LevelFilter::Debug, Some("trace") => log::LevelFilter::Trace, _ => log::LevelFilter::Info });
    let mem: usize = val("mem=").and_then(|m| m.trim_end_matches('M').parse().ok()).unwrap_or(256);
    let memory = arch::mm::PhysMem::new(mem << 20).unwrap();
    let stubs = arch::user::StubHost::start(&memory).unwrap_or_else(|e| { eprintln!("vmlinux: {e}"); std::process::exit(1) });
    if args.iter().any(|a| a == "strace") { kernel::syscall::strace::enable(); }
    let initrd: &'static [u8] = val("initrd=").map_or(&[], |f| Box::leak(std::fs::read(f).unwrap().into_boxed_slice()));
    let ncpus = val("ncpus=").and_then(|n| n.parse().ok()).unwrap_or(1);
    let init = val("init=");
    let ip = kernel::param::parse(&args.iter().filter(|a| a.starts_with("ip=")).collect::<Vec<_>>()).0.ip;
    let nics: Vec<std::sync::Arc<dyn net::NetDevice>> = args.iter().filter(|a| a.starts_with("vec")).map(|a| {
        let nic = drivers::vector::VectorConfig::parse(a).and_then(|c| drivers::vector::Vector::new(&c));
        nic.unwrap_or_else(|e| { eprintln!("{e}"); std::process::exit(1) }) as _
    }).collect();
    let root = val("root=");
    let ubds: Vec<String> = ["ubd0=", "ubd1="].iter().filter_map(|k| val(k)).collect();
    let pass: Vec<String> = args.iter().skip_while(|a| *a != "--").skip(1).cloned().collect();
    kernel::power::set_hook(|ev, code| {
        match ev { kernel::power::PowerEvent::Panic(_) => executor::shutdown(134), _ => executor::shutdown(code) }
    });
    let code = executor::start(executor::Config { ncpus, pin: true }, move || {
        let spec = drivers::console::Spec::parse("fd:0,fd:1").unwrap();
        let console = drivers::console::open(spec).unwrap().unwrap().start();
        let mut disks: Vec<(u32, std::sync::Arc<dyn device::block::BlockDevice>)> = Vec::new();
        for (i, p) in ubds.iter().enumerate() {
            let cfg = drivers::ubd::UbdConfig { unit: i as u8, path: p.into(), backing: None, read_only: true, sync: false, shared: true, data: false, no_trim: false, serial: None };
            disks.push((i as u32 * 16, drivers::ubd::Ubd::open(&cfg, Some(memory.clone())).unwrap()));
        }
        kernel::start::start(
            kernel::start::Machine { memory, stubs, disks, nics, console, initramfs: initrd },
            kernel::start::BootParams { root, init, ip, args: pass, ..Default::default() },
        );
    });
    std::process::exit(code);
}
