// The stub: all the code of ours that runs in guest address spaces. It is copied into a sealed memory file, mapped
// read-only at STUB_BASE, and shared with hostile threads, so (docs/security.md):
//   * root, mapper and zygote use registers only: no stack, no writable word that they read back;
//   * what they do comes from a page that is read-only in the stub and written by the kernel;
//   * jumping in here gains a guest nothing, since filters belong to threads, not to code;
//   * whoever cannot be confined, or has lost the kernel, ends: all signals are blocked, so hlt ends the process.
//
// Registers of the interpreter: r12 command page, r13 next operation, r14 operations left, r15 result page or 0,
// rbx first error or last result, ebp sequence number of the last command, rsp (there is no stack) where a child of
// the operation goes on: read before the call, because the parent may let go of the page while the child starts.

    .pushsection .rodata.kibble_stub, "a", @progbits
    .balign 4096
    .globl kibble_stub_start
kibble_stub_start:

// Runs the list at r13 (r14 operations). A child of clone goes on where the operation says.
.macro RUN_LIST
    xor     ebx, ebx
8:  test    r14, r14
    jz      7f
    mov     rax, [r13]
    mov     rdi, [r13 + 8]
    mov     rsi, [r13 + 16]
    mov     rdx, [r13 + 24]
    mov     r10, [r13 + 32]
    mov     r8,  [r13 + 40]
    mov     r9,  [r13 + 48]
    mov     rsp, [r13 + 56]
    syscall
    test    rax, rax
    jnz     9f
    test    rsp, rsp
    jz      9f
    jmp     rsp
9:  test    rbx, rbx
    js      6f
    mov     rbx, rax
6:  add     r13, 64
    dec     r14
    jmp     8b
7:
.endm

.macro RING_DOORBELL
    mov     eax, 1
    mov     edi, {FD_DOORBELL}
    lea     rsi, [rip + kibble_stub_one]
    mov     edx, 8
    syscall
.endm

// Entry of the ELF image: the zygote maps its command and result pages and waits for commands.
    .globl kibble_stub_entry
kibble_stub_entry:
    mov     eax, 9
    mov     rdi, {ZYGOTE_PAGE}
    mov     esi, 4096
    mov     edx, 1
    mov     r10d, 0x11
    mov     r8d, {FD_CTL}
    mov     r9d, {CTL_ZYGOTE}
    syscall
    mov     eax, 9
    mov     rdi, {ZYGOTE_RESULT}
    mov     esi, 4096
    mov     edx, 3
    mov     r10d, 0x11
    mov     r8d, {FD_CTL}
    mov     r9d, {CTL_ZYGOTE} + 4096
    syscall
    mov     eax, 28
    mov     rdi, {ZYGOTE_RESULT}
    mov     esi, 4096
    mov     edx, 10
    syscall
    mov     r12, {ZYGOTE_PAGE}
    mov     r15, {ZYGOTE_RESULT}
    xor     ebp, ebp

// Zygote and root: wait on the sequence number of the page, run the list, tell the result. The root has no page to
// tell it on that guests could not write as well: it tells only a failure, by a descriptor at the number that the page says.
wait_command:
    mov     eax, 202
    mov     rdi, r12
    xor     esi, esi
    mov     edx, ebp
    xor     r10d, r10d
    xor     r8d, r8d
    xor     r9d, r9d
    syscall
    mov     eax, [r12]
    cmp     eax, ebp
    je      wait_command
    mov     ebp, eax
    lea     r13, [r12 + {OPS_OFFSET}]
    mov     r14, [r12 + 8]
    RUN_LIST
    test    r15, r15
    jz      1f
    mov     [r15 + 8], rbx
    mov     [r15], ebp
    RING_DOORBELL
    jmp     wait_command
1:  mov     esi, [r12 + {FAILED_FD_OFFSET}]
root_result:
    test    rbx, rbx
    jns     wait_command
    mov     eax, 33                     // dup2 of the doorbell to esi
    mov     edi, {FD_DOORBELL}
    syscall
    RING_DOORBELL
    jmp     wait_command

// A new stub's root, forked by the zygote: runs the child's list of the zygote's page (which maps its own page
// and starts the mapper), lets go of the zygote's page, then waits for commands of its own.
    .globl kibble_stub_root
kibble_stub_root:
    lea     r13, [r12 + {CHILD_OPS_OFFSET}]
    mov     r14, [r12 + 16]
    xor     r15d, r15d
    RUN_LIST
    mov     eax, 110                    // getppid: the kernel may have died before PDEATHSIG was set
    syscall
    cmp     eax, [r12 + {ZYGOTE_PID_OFFSET}]
    jne     die
    mov     eax, 11
    mov     rdi, r12
    mov     esi, 4096
    syscall
    mov     r12, {ROOT_PAGE}
    xor     ebp, ebp
    mov     esi, {FD_FAILED}
    jmp     root_result

// The mapper: its first list confines it, then each answer to its notification means a new list.
    .globl kibble_stub_mapper
kibble_stub_mapper:
    mov     r12, {MAPPER_PAGE}
    lea     r13, [r12 + {OPS_OFFSET}]
    mov     r14, [r12 + 8]
    RUN_LIST
    RING_DOORBELL
1:  mov     eax, {NR_NOTIFY}
    mov     rdi, {NOTIFY_MAPPER}
    mov     rsi, rbx
    syscall
    test    rax, rax                    // ENOSYS: the kernel has let go of the listener
    jnz     die
    lea     r13, [r12 + {OPS_OFFSET}]
    mov     r14, [r12 + 8]
    RUN_LIST
    jmp     1b

// A new guest thread, cloned by the root: the child's list gives it a signal stack and its filter; then it reports
// with signal number 0 and starts from the frame that the kernel lays into its block.
    .globl kibble_stub_thread
kibble_stub_thread:
    lea     r13, [r12 + {CHILD_OPS_OFFSET}]
    mov     r14, [r12 + 16]
    mov     r15, [r12 + 24]
    RUN_LIST
    test    rbx, rbx                    // without its filter it must not see a frame that siblings can write
    js      die
    RING_DOORBELL
    xor     edi, edi
    xor     r10d, r10d
    xor     r8d, r8d
    jmp     notify

// Signal handler of guest threads: the frame (with all registers) is at rsp; tell the kernel, do as it says.
    .globl kibble_stub_handler
kibble_stub_handler:
    mov     r15, rsp
    rdfsbase r10
    rdgsbase r8
notify:
    mov     r9, r15
    mov     eax, {NR_NOTIFY}
    syscall
    .globl kibble_stub_notify_ip
kibble_stub_notify_ip:
    test    rax, rax
    jz      2f
    cmp     rax, {REPLY_BASES}
    jne     3f                          // ENOSYS too: the kernel has let go of the listener
    mov     rax, [r15 + {FRAME_FS_BASE}]
    wrfsbase rax
    mov     rax, [r15 + {FRAME_GS_BASE}]
    wrgsbase rax
2:  lea     rsp, [r15 + 8]
    mov     eax, 15
    syscall
    .globl kibble_stub_sigreturn_ip
kibble_stub_sigreturn_ip:
    hlt
3:  xor     edi, edi
    mov     eax, 60
    syscall
    .globl kibble_stub_exit_ip
kibble_stub_exit_ip:
die:
    hlt

    .balign 8
    .globl kibble_stub_one
kibble_stub_one:
    .quad   1

    .globl kibble_stub_end
kibble_stub_end:
    .popsection
