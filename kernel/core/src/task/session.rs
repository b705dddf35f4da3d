//! Sessions and the controlling terminal (setsid(2), credentials(7)).

use super::task::Pid;
use parking_lot::Mutex;
use std::any::Any;
use std::sync::Arc;

/// What a session needs of its controlling terminal. The tty layer implements it.
pub trait ControllingTty: Any + Send + Sync {
    /// The foreground process group (tcgetpgrp(3)); 0 if none.
    fn foreground_pgrp(&self) -> Pid;
    /// The session leader has gone: the terminal forgets the session. Signals are sent by the caller.
    fn disassociate(&self);
    /// Device number as stat(2) encodes it, for /proc/PID/stat.
    fn dev(&self) -> u64;
}

/// A session. Process groups hang on it through the processes in them.
pub struct Session {
    /// Session id: the process id of its leader.
    pub sid: Pid,
    ctty: Mutex<Option<Arc<dyn ControllingTty>>>,
}

impl Session {
    /// A session without a terminal.
    pub fn new(sid: Pid) -> Arc<Self> {
        Arc::new(Self { sid, ctty: Mutex::new(None) })
    }

    /// The controlling terminal.
    pub fn ctty(&self) -> Option<Arc<dyn ControllingTty>> {
        self.ctty.lock().clone()
    }

    /// TIOCSCTTY, TIOCNOTTY: sets or takes away the controlling terminal; gives the old one.
    pub fn set_ctty(&self, tty: Option<Arc<dyn ControllingTty>>) -> Option<Arc<dyn ControllingTty>> {
        std::mem::replace(&mut *self.ctty.lock(), tty)
    }
}
