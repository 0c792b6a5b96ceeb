//! What a step cannot reach, whoever the engine's root is outside.

use std::io::Write as _;

use lapstrake::sandbox::{Network, Spec, Status};

use super::{CANARY, cases};
use crate::world::{World, run};

cases![
    a_step_has_the_rights_of_docker_and_no_others,
    a_step_sees_no_process_but_its_own,
    pid_one_shows_nothing_of_itself,
    nothing_of_the_kernel_can_be_set,
    covers_cannot_be_taken_away,
    no_step_makes_a_user_namespace,
    an_i386_program_runs_under_the_filter,
    an_abstract_socket_of_the_host_is_out_of_reach,
    a_device_cannot_be_made,
    a_step_without_network_has_only_loopback,
    a_step_with_the_network_of_the_host_has_it,
    the_host_is_nowhere,
    pid_one_cannot_be_killed_from_inside,
];

fn a_step_has_the_rights_of_docker_and_no_others(world: &World) {
    let ran = run(world.spec(&["grep", "^Cap", "/proc/self/status"]));
    let expected = "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n\
                    CapAmb:\t0000000000000000\n";
    assert_eq!(ran.out, expected, "{ran:?}");
}

fn a_step_sees_no_process_but_its_own(world: &World) {
    let ran = world.shell("cd /proc; for p in [0-9]*; do echo $p; done; grep -l LAPSTRAKE [0-9]*/environ; grep -c . /proc/keys");
    // pid 1, and the shell or what it started.
    assert!(ran.out.lines().filter(|line| line.parse::<u32>().is_ok_and(|pid| pid > 0)).count() <= 3, "{ran:?}");
    assert!(!ran.out.contains("environ"), "{ran:?}");
    #[expect(clippy::disallowed_methods, reason = "the test asks for what it put there itself")]
    let canary = std::env::var_os(CANARY);
    assert!(canary.is_some(), "the canary is where it was put");
}

fn pid_one_shows_nothing_of_itself(world: &World) {
    let script = "cat /proc/1/environ; ls /proc/1/root/; cat /proc/1/mem; cat /proc/1/exe; for fd in 0 1 2 3 4 5; do cat /proc/1/fd/$fd; \
                  echo x > /proc/1/fd/$fd; readlink /proc/1/fd/$fd; done; readlink /proc/1/exe; echo end";
    let ran = world.shell(script);
    assert_eq!(ran.out, "end\n", "{ran:?}");
    assert!(ran.err.matches("Permission denied").count() >= 10, "{ran:?}");
}

fn nothing_of_the_kernel_can_be_set(world: &World) {
    let files = "/proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches /proc/sysrq-trigger /sys/kernel/uevent_helper \
                 /sys/kernel/mm/transparent_hugepage/enabled /sys/power/state /proc/sys/kernel/hostname";
    let script = format!(
        "for f in {files}; do test -e $f && (echo 1 > $f) 2>/dev/null && echo wrote $f; done; cat /proc/kcore | head -c 1 | wc -c; \
                          ls /sys/firmware /proc/acpi /sys/kernel/debug 2>/dev/null | grep -v :; cat /proc/timer_list | wc -c"
    );
    for network in [Network::Host, Network::None] {
        let ran = run(Spec { network, ..world.spec(&["sh", "-c", &script]) });
        assert_eq!(ran.out.split_whitespace().collect::<Vec<_>>(), ["0", "0"], "{ran:?}");
    }
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").expect("a setting");
    assert_ne!(pattern.trim(), "1");
}

fn covers_cannot_be_taken_away(world: &World) {
    let script = "umount /proc/sys; umount -l /proc/kcore; mount -o remount,rw /proc/sys; mount -o bind,remount,rw /sys; \
                  mount -t proc proc /tmp; mount -t tmpfs t /tmp; mount -t sysfs s /tmp; umount /etc/hosts; \
                  ls /tmp; (echo 1 > /proc/sys/kernel/core_pattern) 2>/dev/null && echo wrote; echo end";
    let ran = world.shell(script);
    assert_eq!(ran.out, "end\n", "{ran:?}");
    // A user namespace of its own gives a step rights, but not these.
    let nested = format!("unshare -U -r -m -p -f sh -c '{}'", script.replace("mount -t tmpfs t /tmp; ", ""));
    let ran = world.shell(&nested);
    assert!(ran.out == "end\n" || ran.err.contains("unshare"), "{ran:?}");
}

fn no_step_makes_a_user_namespace(world: &World) {
    let limit = || std::fs::read_to_string("/proc/sys/user/max_user_namespaces").expect("a limit");
    let before = limit();
    let ran = world.shell("unshare -U true && echo made");
    assert_eq!(ran.out, "", "{ran:?}");
    assert_eq!(limit(), before, "the limit is the step's own");
}

/// A program of 32 bits that exits with the errno of `mount(0, 0, 0, …)`: EFAULT where nothing filters it, and EPERM here.
fn an_i386_program_runs_under_the_filter(world: &World) {
    use std::os::unix::fs::PermissionsExt as _;
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    // mov eax, 21; xor ebx, ebx; xor ecx, ecx; xor edx, edx; int 0x80; neg eax; mov ebx, eax; mov eax, 1; int 0x80
    let code: [u8; 24] =
        [0xb8, 21, 0, 0, 0, 0x31, 0xdb, 0x31, 0xc9, 0x31, 0xd2, 0xcd, 0x80, 0xf7, 0xd8, 0x89, 0xc3, 0xb8, 1, 0, 0, 0, 0xcd, 0x80];
    let (base, headers) = (0x0804_8000_u32, 52 + 32_u32);
    // ELF, 32 bits, little-endian, version 1; an executable for i386.
    let mut file = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0];
    for word in [1, base + headers, 52, 0, 0] {
        file.extend_from_slice(&u32::to_le_bytes(word));
    }
    for half in [52_u16, 32, 1, 40, 0, 0] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    let size = headers + 24;
    for word in [1, 0, base, base, size, size, 5, 0x1000] {
        file.extend_from_slice(&u32::to_le_bytes(word));
    }
    file.extend_from_slice(&code);
    let path = world.path("base/bin/mount32");
    std::fs::write(&path, file).expect("a program");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    match run(world.spec(&["mount32"])).result {
        Ok(finished) => assert_eq!(finished.status, Status::Exited(1)),
        // A kernel without programs of 32 bits: ENOEXEC.
        Err(error) => assert_eq!(error.errno, 8, "{error}"),
    }
}

fn an_abstract_socket_of_the_host_is_out_of_reach(world: &World) {
    use std::os::{linux::net::SocketAddrExt as _, unix::net};
    let name = format!("lapstrake-canary-{}", std::process::id());
    let address = net::SocketAddr::from_abstract_name(&name).expect("a name");
    let _listener = net::UnixListener::bind_addr(&address).expect("a socket");
    assert!(net::UnixStream::connect_addr(&address).is_ok());
    let _size = std::fs::copy("/proc/self/exe", world.path("base/bin/program")).expect("a copy of this program");
    // Before Linux 6.12 nothing keeps a step on the network of the host from it.
    let scoped = lapstrake::sys::own_abstract_sockets().is_some();
    for network in [Network::Host, Network::None] {
        let ran = run(Spec { network, ..world.spec(&["program", "connect", &name]) });
        let said = if scoped || network == Network::None {
            ran.err.starts_with("PermissionDenied") || ran.err.starts_with("ConnectionRefused")
        } else {
            true
        };
        assert!(said && ran.err.ends_with("own reached\n"), "{network:?} {ran:?}");
    }
}

fn a_device_cannot_be_made(world: &World) {
    let ran = world.shell("mknod /tmp/null c 1 3; mknod /tmp/disk b 8 0; mknod /tmp/whiteout c 0 0; mknod /tmp/fifo p; ls /tmp");
    assert_eq!(ran.out, "fifo\n", "{ran:?}");
}

fn a_step_without_network_has_only_loopback(world: &World) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            stream.expect("a stream").write_all(b"host").expect("a word");
        }
    });
    let script = format!("ls /sys/class/net; ip addr show lo | grep -c 'UP'; nc -w 2 127.0.0.1 {port} < /dev/null");
    let ran = run(Spec { network: Network::None, ..world.spec(&["sh", "-c", &script]) });
    assert_eq!(ran.out, "lo\n1\n", "{ran:?}");
    let ran = world.shell(&format!("nc -w 2 127.0.0.1 {port} < /dev/null"));
    assert_eq!(ran.out, "host", "the listener is there: {ran:?}");
}

fn a_step_with_the_network_of_the_host_has_it(world: &World) {
    let ran = run(world.spec(&["ls", "/sys/class/net"]));
    let mut ours: Vec<String> =
        std::fs::read_dir("/sys/class/net").expect("devices").map(|entry| entry.expect("one").file_name().display().to_string()).collect();
    ours.sort();
    assert_eq!(ran.out.lines().collect::<Vec<_>>(), ours);
}

fn the_host_is_nowhere(world: &World) {
    // Mounts: none of them shows a directory of the host but the parts of /sys.
    let ran = run(world.spec(&["cat", "/proc/self/mountinfo"]));
    let points: Vec<&str> = ran.out.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    assert!(points.contains(&"/") && points.contains(&"/proc/sys"), "{ran:?}");
    let known = |point: &&&str| {
        ["/proc", "/dev", "/sys", "/etc/hosts", "/etc/resolv.conf"].iter().any(|dir| point.starts_with(dir)) || **point == "/"
    };
    assert_eq!(points.iter().filter(|point| !known(point)).count(), 0, "{points:?}");
    // A way out by chroot and an open directory.
    let ran = world
        .shell("mkdir /tmp/c; cd /; chroot /tmp/c /x 2>/dev/null; cd ../../../../..; ls; test -e /proc/self/root/bin/busybox; echo $?");
    assert_eq!(ran.out, "bin\ndev\netc\nproc\nroot\nsys\ntmp\n0\n", "{ran:?}");
}

fn pid_one_cannot_be_killed_from_inside(world: &World) {
    let ran = world.shell("kill -9 1; kill -TERM 1; kill -INT 1; kill -STOP 1; sleep 0.05; echo alive");
    assert_eq!(ran.out, "alive\n", "{ran:?}");
}
