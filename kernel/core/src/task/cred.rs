//! Credentials (credentials(7)): immutable; a change makes a new one.

/// User and group ids and capabilities of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cred {
    /// Real, effective, saved and file system user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Saved user id.
    pub suid: u32,
    /// File system user id.
    pub fsuid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective group id.
    pub egid: u32,
    /// Saved group id.
    pub sgid: u32,
    /// File system group id.
    pub fsgid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Effective capabilities, bit n = capability n.
    pub cap_effective: u64,
    /// Permitted capabilities.
    pub cap_permitted: u64,
    /// Inheritable capabilities.
    pub cap_inheritable: u64,
    /// Bounding set.
    pub cap_bounding: u64,
    /// Ambient set.
    pub cap_ambient: u64,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
}

/// All capabilities that Linux 6.12 knows (0..=40).
pub const CAP_FULL: u64 = (1 << 41) - 1;

impl Cred {
    /// The superuser, as the first process has it.
    pub fn root() -> Self {
        Self {
            uid: 0,
            euid: 0,
            suid: 0,
            fsuid: 0,
            gid: 0,
            egid: 0,
            sgid: 0,
            fsgid: 0,
            groups: Vec::new(),
            cap_effective: CAP_FULL,
            cap_permitted: CAP_FULL,
            cap_inheritable: 0,
            cap_bounding: CAP_FULL,
            cap_ambient: 0,
            no_new_privs: false,
        }
    }

    /// True if the effective set holds capability `cap` (capabilities(7) numbers).
    pub fn capable(&self, cap: u32) -> bool {
        cap < 64 && self.cap_effective & (1 << cap) != 0
    }

    /// True if `gid` is the file system group or one of the supplementary groups.
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.contains(&gid)
    }
}
