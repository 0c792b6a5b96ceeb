import ctypes, os, struct, sys
# What Docker's default profile and capabilities leave root: no namespaces, no mounts, a kernel without clone3. The rest of the
# arguments is the program to run so. Source: capset(2), seccomp(2), bpf(2)'s classic form.
libc = ctypes.CDLL(None, use_errno=True)
KEEP = 0xA80425FB
NR = dict(clone3=435, open_tree=428, move_mount=429, fsopen=430, fsconfig=431, fsmount=432, fspick=433, mount_setattr=442)
if os.uname().machine == 'x86_64':
    NR.update(clone=56, unshare=272, setns=308, mount=165, umount2=166, pivot_root=155, add_key=248, request_key=249, keyctl=250)
else:
    NR.update(clone=220, unshare=97, setns=268, mount=40, umount2=39, pivot_root=41, add_key=217, request_key=218, keyctl=219)
EPERM, ENOSYS, EACCES = 1, 38, 13
ld = lambda off: struct.pack('=HBBI', 0x20, 0, 0, off)
jeq = lambda k, t, f: struct.pack('=HBBI', 0x15, t, f, k)
jset = lambda k, t, f: struct.pack('=HBBI', 0x45, t, f, k)
ret = lambda k: struct.pack('=HBBI', 6, 0, 0, k)
prog = [ld(0)]
for name, nr in NR.items():
    if name == 'clone':
        prog += [jeq(nr, 0, 4), ld(16), jset(0x7E020000, 0, 1), ret(0x50000 | EPERM), ret(0x7FFF0000)]
    else:
        prog += [jeq(nr, 0, 1), ret(0x50000 | (ENOSYS if name == 'clone3' else EPERM))]
prog.append(ret(0x7FFF0000))
code = b''.join(prog)
buf = ctypes.create_string_buffer(code, len(code))
fprog = ctypes.create_string_buffer(struct.pack('=H6xQ', len(prog), ctypes.addressof(buf)))
if libc.prctl(22, 2, fprog, 0, 0) != 0:
    sys.exit('seccomp: ' + os.strerror(ctypes.get_errno()))
for cap in range(64):
    if not KEEP >> cap & 1:
        libc.prctl(24, cap, 0, 0, 0)
hdr = ctypes.create_string_buffer(struct.pack('=Ii', 0x20080522, 0))
lo, hi = KEEP & 0xFFFFFFFF, KEEP >> 32
data = ctypes.create_string_buffer(struct.pack('=6I', lo, lo, 0, hi, hi, 0))
if libc.capset(hdr, data) != 0:
    sys.exit('capset: ' + os.strerror(ctypes.get_errno()))
os.execvpe(sys.argv[1], sys.argv[1:], os.environ)
