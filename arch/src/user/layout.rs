//! Where the stub's own pages lie, in every stub alike, and what the code in `stub.S` and the kernel agree on.
//!
//! Guests own everything below [`GUEST_END`]. Above it lie the stub's pages and the host's vDSO.

/// First address that a guest cannot map: its TASK_SIZE.
pub const GUEST_END: u64 = STUB_BASE;
/// Lowest address that a guest may map (vm.mmap_min_addr).
pub const GUEST_START: u64 = 0x1_0000;
/// The stub's text and constants (read, execute).
pub const STUB_BASE: u64 = 0x7ff0_0000_0000;
/// The zygote's command page (read); not mapped in stubs.
pub const ZYGOTE_PAGE: u64 = STUB_BASE + 0x10_0000;
/// The zygote's result page (read, write, not inherited by fork).
pub const ZYGOTE_RESULT: u64 = STUB_BASE + 0x11_0000;
/// A stub root's command page (read).
pub const ROOT_PAGE: u64 = STUB_BASE + 0x12_0000;
/// A mapper's list of operations (read), [`MAPPER_LEN`] bytes.
pub const MAPPER_PAGE: u64 = STUB_BASE + 0x13_0000;
/// Bytes of a mapper's list.
pub const MAPPER_LEN: u64 = 0x4000;
/// Where the host's vDSO and its data pages are moved to.
pub const VDSO_BASE: u64 = STUB_BASE + 0x20_0000;
/// First thread block; block `i` lies at `BLOCKS + i * BLOCK_LEN` in whichever stub uses it.
pub const BLOCKS: u64 = STUB_BASE + 0x1000_0000;
/// Bytes of a thread block: the signal stack of one guest thread, where the host leaves its register frames.
pub const BLOCK_LEN: u64 = 0x8000;

/// Most stubs (guest address spaces) at a time.
pub const MAX_STUBS: usize = 4096;
/// Most guest threads at a time.
pub const MAX_BLOCKS: usize = 16384;

/// Offset in the control file of the zygote's pages.
pub const CTL_ZYGOTE: u64 = 0;
/// Offset of the per-stub slots.
pub const CTL_SLOTS: u64 = 0x10000;
/// Bytes of a slot: root page, then the mapper's list.
pub const SLOT_LEN: u64 = 0x1000 + MAPPER_LEN;
/// Offset of the thread blocks.
pub const CTL_BLOCKS: u64 = (CTL_SLOTS + SLOT_LEN * MAX_STUBS as u64 + 0xffff) & !0xffff;
/// Size of the control file.
pub const CTL_LEN: u64 = CTL_BLOCKS + BLOCK_LEN * MAX_BLOCKS as u64;

/// Descriptor of the doorbell in zygote and stubs.
pub const FD_DOORBELL: u64 = 0;
/// Descriptor of guest memory in zygote and mappers.
pub const FD_MEM: u64 = 1;
/// Descriptor of the control file in zygote and mappers.
pub const FD_CTL: u64 = 2;
/// Where a mapper's listener appears while a stub is being set up.
pub const FD_MAPPER_LISTENER: i32 = 3;
/// The root puts a descriptor at this number if its set-up has failed, and at this number plus that of the listener that
/// was to appear if a guest thread could not be made.
pub const FD_FAILED: i32 = 8;
/// The number that the stub's own notifications carry; no Linux call has it.
pub const NR_NOTIFY: u32 = 0x4b42;
/// First argument of the mapper's "I am idle" notification.
pub const NOTIFY_MAPPER: u64 = 0x6d61_7000;
/// Reply to a thread's notification: resume from the frame.
pub const REPLY_RESUME: i64 = 0;
/// Reply to a thread's notification: the host thread ends.
pub const REPLY_EXIT: i64 = 1;
/// Reply to a thread's notification: resume with the bases of FS and GS that stand in the frame.
pub const REPLY_BASES: i64 = 2;

/// The signal that kicks a thread out of guest code. Not a real-time one: those queue up behind a guest that blocks
/// them and use up the user's RLIMIT_SIGPENDING, after which kicks of others are lost. SIGURG is ignored by default,
/// so one that comes too late and meets a stranger with the same number does no harm.
pub const SIG_KICK: i32 = 23;

/// Offset of an operation list in a command page.
pub const OPS_OFFSET: u64 = 64;
/// Bytes of an operation: number, six arguments, address at which a child goes on (or 0).
pub const OP_LEN: u64 = 64;
/// Offset in the zygote's command page of its process id, by which a child knows that its parent still lives.
pub const ZYGOTE_PID_OFFSET: u64 = 32;
/// Offset in a root's command page of the number at which it puts a descriptor if a command fails.
pub const FAILED_FD_OFFSET: u64 = 40;
/// Offset in a command page of the list that a child runs.
pub const CHILD_OPS_OFFSET: u64 = 0x400;
/// Offset in a command page of structures that operations point to.
pub const DATA_OFFSET: u64 = 0xc00;
