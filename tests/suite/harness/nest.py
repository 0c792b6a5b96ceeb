# Makes a user and a mount namespace whose root has ids in three extents, as a nested container's has, and runs the arguments in
# it. Source: user_namespaces(7).
import ctypes, os, sys
ready, go = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    if ctypes.CDLL(None).unshare(0x10000000 | 0x00020000) != 0:
        sys.exit('no user namespace')
    os.write(ready[1], b'x')
    os.read(go[0], 1)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.execvpe(sys.argv[1], sys.argv[1:], os.environ)
os.read(ready[0], 1)
for name in ('uid_map', 'gid_map'):
    with open(f'/proc/{child}/{name}', 'w') as file:
        file.write('0 0 1\n1 1 999\n1000 100000 64536\n')
os.write(go[1], b'x')
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
