//! Log lines go to the kernel's ring, and from there to the console; which ones is env_logger's filter (`log=`).

use kernel::param::BootLine;
use log::{Log, Metadata, Record};

struct Logger(env_logger::Logger);

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.0.matches(record) {
            // A target that names a module of ours says nothing to a reader of dmesg.
            let target = if record.target().contains("::") { "" } else { record.target() };
            kernel::printk::emit(record.level(), target, *record.args());
        }
    }

    fn flush(&self) {
        kernel::tty::console::flush();
    }
}

/// Sends all that is logged from now on to the kernel's log.
pub fn install(line: &BootLine) {
    // "info" comes first, so that naming one subsystem does not silence the others.
    let base = if line.loglevel > 8 { "debug" } else { "info" };
    let filters = format!("{base},{}", line.log.as_deref().unwrap_or_default());
    let logger = env_logger::Builder::new().parse_filters(&filters).build();
    let most = logger.filter();
    kernel::printk::set_console_level(line.loglevel);
    if log::set_boxed_logger(Box::new(Logger(logger))).is_ok() {
        log::set_max_level(most);
    }
}
