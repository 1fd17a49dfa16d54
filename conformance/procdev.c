// /proc, /sys and /dev: what programs read there.
#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static char buf[1 << 20], lnk[4096];

static ssize_t slurp(const char *path)
{
	int fd = open(path, O_RDONLY);
	ssize_t n = 0, r;

	if (fd < 0)
		return -1;
	while ((r = read(fd, buf + n, sizeof(buf) - 1 - n)) > 0)
		n += r;
	buf[n] = 0;
	close(fd);
	return r < 0 ? -1 : n;
}

static const char *linkof(const char *path)
{
	ssize_t n = readlink(path, lnk, sizeof(lnk) - 1);

	lnk[n < 0 ? 0 : n] = 0;
	return lnk;
}

static int has_line(const char *key)
{
	size_t n = strlen(key);

	for (const char *p = buf; p; p = strchr(p, '\n'), p = p ? p + 1 : NULL)
		if (!strncmp(p, key, n))
			return 1;
	return 0;
}

static void *thread(void *arg)
{
	prctl(PR_SET_NAME, "second");
	read(*(int *)arg, buf, 1);
	return NULL;
}

static void self(void)
{
	char path[100], want[100], comm[100], state;
	int pid, ppid, pgrp, session, n, fd, p[2];
	unsigned long vsize;
	struct stat st;
	struct statfs sf;
	pthread_t th;
	DIR *d;
	struct dirent *e;

	snprintf(want, sizeof(want), "%d", getpid());
	CHECK("self", !strcmp(linkof("/proc/self"), want));
	snprintf(want, sizeof(want), "%d/task/%d", getpid(), getpid());
	CHECK("thread-self", !strcmp(linkof("/proc/thread-self"), want));
	CHECK("magic", statfs("/proc", &sf) == 0 && sf.f_type == 0x9fa0);
	CHECK("dir", stat("/proc/self", &st) == 0 && S_ISDIR(st.st_mode) && (st.st_mode & 0777) == 0555);
	CHECK("stat", slurp("/proc/self/stat") > 0 && sscanf(buf, "%d (%[^)]) %c %d %d %d", &pid, comm, &state, &ppid, &pgrp, &session) == 6 && pid == getpid() && ppid == getppid() && pgrp == getpgrp() && session == getsid(0) && state == 'R');
	for (n = 1, pid = 0; buf[pid]; pid++)
		n += buf[pid] == ' ';
	CHECK("52 fields", n == 52);
	CHECK("status", slurp("/proc/self/status") > 0 && has_line("Name:\t") && has_line("Pid:\t") && has_line("VmRSS:\t") && has_line("Threads:\t1\n") && has_line("SigQ:\t") && has_line("CapEff:\t") && has_line("Seccomp:\t") && has_line("Cpus_allowed_list:\t") && has_line("NoNewPrivs:\t"));
	CHECK("statm", slurp("/proc/self/statm") > 0 && sscanf(buf, "%lu %*u %*u %*u 0 %*u 0", &vsize) == 1 && vsize > 10);
	prctl(PR_SET_NAME, "renamed");
	CHECK("comm", slurp("/proc/self/comm") > 0 && !strcmp(buf, "renamed\n"));
	fd = open("/proc/self/comm", O_WRONLY);
	CHECK("set comm", write(fd, "other\n", 6) == 6 && (prctl(PR_GET_NAME, comm), !strcmp(comm, "other\n")));
	close(fd);
	CHECK("maps", slurp("/proc/self/maps") > 0 && strstr(buf, "[stack]") && strstr(buf, " r-xp ") && strstr(buf, "[vdso]"));
	CHECK("smaps", slurp("/proc/self/smaps") > 0 && has_line("Rss:") && has_line("VmFlags:"));
	CHECK("smaps_rollup", slurp("/proc/self/smaps_rollup") > 0 && has_line("Pss:") && strstr(buf, "[rollup]"));
	setenv("IN_VAIN", "x", 1);
	CHECK("cmdline", slurp("/proc/self/cmdline") > 1 && strstr(buf, "procdev"));
	CHECK("environ", slurp("/proc/self/environ") > 0 && strchr(buf, '='));
	CHECK("auxv", slurp("/proc/self/auxv") >= 16 * 10);
	CHECK("exe", strstr(linkof("/proc/self/exe"), "procdev") != NULL);
	CHECK("root", !strcmp(linkof("/proc/self/root"), "/"));
	chdir("/tmp");
	CHECK("cwd", !strcmp(linkof("/proc/self/cwd"), "/tmp"));
	CHECK("limits", slurp("/proc/self/limits") > 0 && has_line("Max open files ") && has_line("Max realtime timeout "));
	CHECK("cgroup", slurp("/proc/self/cgroup") > 0 && strstr(buf, "::/"));
	CHECK("mounts", slurp("/proc/self/mounts") > 0 && strstr(buf, " / ") && strstr(buf, " /proc proc "));
	CHECK("mountinfo", slurp("/proc/self/mountinfo") > 0 && strstr(buf, " - proc "));
	CHECK("oom_score_adj", slurp("/proc/self/oom_score_adj") > 0 && !strcmp(buf, "0\n"));
	fd = open("/proc/self/oom_score_adj", O_WRONLY);
	CHECK("raise oom", write(fd, "100", 3) == 3 && slurp("/proc/self/oom_score_adj") > 0 && !strcmp(buf, "100\n"));
	CHECK_ERR("oom range", write(fd, "2000", 4), EINVAL);
	close(fd);
	CHECK("uid_map", slurp("/proc/self/uid_map") > 0 && sscanf(buf, "%d %d %d", &pid, &ppid, &pgrp) == 3);
	CHECK("ns", !strncmp(linkof("/proc/self/ns/pid"), "pid:[", 5) && !strncmp(linkof("/proc/self/ns/mnt"), "mnt:[", 5));

	pipe(p);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", p[0]);
	CHECK("fd pipe", !strncmp(linkof(path), "pipe:[", 6));
	CHECK("fd link mode", lstat(path, &st) == 0 && S_ISLNK(st.st_mode) && (st.st_mode & 0777) == 0500);
	fd = open(path, O_WRONLY);
	CHECK("reopen pipe", fd >= 0 && write(fd, "r", 1) == 1 && read(p[0], buf, 1) == 1);
	close(fd);
	fd = open("/tmp/procdev-file", O_CREAT | O_RDWR | O_APPEND, 0600);
	write(fd, "content", 7);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	CHECK("fd file", !strcmp(linkof(path), "/tmp/procdev-file"));
	unlink("/tmp/procdev-file");
	CHECK("fd deleted", !strcmp(linkof(path), "/tmp/procdev-file (deleted)"));
	CHECK("open deleted", slurp(path) == 7);
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	CHECK("fdinfo", slurp(path) > 0 && has_line("pos:\t7\n") && has_line("flags:\t0") && has_line("mnt_id:\t"));
	close(fd);
	CHECK_ERR("closed fd", readlink(path, lnk, 10), ENOENT);
	d = opendir("/proc/self/fd");
	for (n = 0; d && (e = readdir(d));)
		n += e->d_type == DT_LNK;
	CHECK("fd list", n >= 5);
	closedir(d);

	pthread_create(&th, NULL, thread, &p[0]);
	usleep(50000);
	d = opendir("/proc/self/task");
	for (n = 0; d && (e = readdir(d));)
		if (e->d_name[0] != '.') {
			n++;
			if (atoi(e->d_name) != getpid()) {
				snprintf(path, sizeof(path), "/proc/self/task/%s/comm", e->d_name);
				CHECK("thread comm", slurp(path) > 0 && !strcmp(buf, "second\n"));
				snprintf(path, sizeof(path), "/proc/%s/status", e->d_name);
				CHECK("thread as pid", slurp(path) > 0 && has_line("Threads:\t2"));
			}
		}
	CHECK("threads", n == 2);
	closedir(d);
	write(p[1], "x", 1);
	pthread_join(th, NULL);
	close(p[0]);
	close(p[1]);
}

static void others(void)
{
	int p[2], st, fd;
	char path[100], c;
	pid_t pid;
	static long secret = 0x1234;

	pipe(p);
	pid = fork();
	if (!pid) {
		read(p[0], &c, 1);
		_exit(0);
	}
	usleep(30000);
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	CHECK("child", slurp(path) > 0 && has_line("State:\tS (sleeping)"));
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_RDWR);
	CHECK("mem read", fd >= 0 && pread(fd, buf, 8, (off_t)(long)&secret) == 8 && *(long *)buf == 0x1234);
	secret = 5;
	CHECK("mem write", pwrite(fd, &secret, 8, (off_t)(long)&secret) == 8 && pread(fd, buf, 8, (off_t)(long)&secret) == 8 && *(long *)buf == 5);
	CHECK_ERR("mem hole", pread(fd, buf, 8, 8), EIO);
	close(fd);
	snprintf(path, sizeof(path), "/proc/%d", pid);
	fd = open(path, O_RDONLY | O_DIRECTORY);
	kill(pid, 9);
	usleep(30000);
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	CHECK("zombie", slurp(path) > 0 && has_line("State:\tZ (zombie)"));
	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	CHECK("zombie cmdline", slurp(path) == 0);
	waitpid(pid, &st, 0);
	CHECK_ERR("gone", open(path, O_RDONLY), ENOENT);
	CHECK("held dir is dead", openat(fd, "status", O_RDONLY) == -1);
	close(fd);
	close(p[0]);
	close(p[1]);
}

static void machine(void)
{
	struct utsname u;
	double up, idle;
	struct timespec ts;
	int fd, n;
	char b[50];

	uname(&u);
	CHECK("meminfo", slurp("/proc/meminfo") > 0 && has_line("MemTotal: ") && has_line("MemAvailable: ") && has_line("SwapFree: "));
	CHECK("cpuinfo", slurp("/proc/cpuinfo") > 0 && has_line("processor\t: 0") && has_line("flags\t\t: "));
	CHECK("stat", slurp("/proc/stat") > 0 && has_line("cpu  ") && has_line("cpu0 ") && has_line("btime ") && has_line("ctxt "));
	clock_gettime(CLOCK_BOOTTIME, &ts);
	CHECK("uptime", slurp("/proc/uptime") > 0 && sscanf(buf, "%lf %lf", &up, &idle) == 2 && up > 0);
	CHECK("loadavg", slurp("/proc/loadavg") > 0 && sscanf(buf, "%lf %*f %*f %d/%d", &up, &n, &n) == 3);
	CHECK("version", slurp("/proc/version") > 0 && strstr(buf, u.release) && strstr(buf, "Linux version "));
	CHECK("osrelease", slurp("/proc/sys/kernel/osrelease") > 0 && !strncmp(buf, u.release, strlen(u.release)));
	CHECK("hostname", slurp("/proc/sys/kernel/hostname") > 0 && !strncmp(buf, u.nodename, strlen(u.nodename)));
	CHECK("filesystems", slurp("/proc/filesystems") > 0 && has_line("nodev\ttmpfs") && has_line("nodev\tproc"));
	CHECK("mounts link", !strcmp(linkof("/proc/mounts"), "self/mounts") && !strcmp(linkof("/proc/net"), "self/net"));
	CHECK("uuid", slurp("/proc/sys/kernel/random/uuid") == 37 && buf[8] == '-' && buf[14] == '4');
	strcpy(b, buf);
	CHECK("uuid differs", slurp("/proc/sys/kernel/random/uuid") == 37 && strcmp(b, buf));
	slurp("/proc/sys/kernel/random/boot_id");
	strcpy(b, buf);
	CHECK("boot id stays", slurp("/proc/sys/kernel/random/boot_id") == 37 && !strcmp(b, buf));
	CHECK("pid_max", slurp("/proc/sys/kernel/pid_max") > 0 && atoi(buf) >= 32768);
	CHECK("overcommit", slurp("/proc/sys/vm/overcommit_memory") == 2);
	CHECK("pipe-max-size", slurp("/proc/sys/fs/pipe-max-size") > 0 && atoi(buf) == 1048576);
	CHECK("cap_last_cap", slurp("/proc/sys/kernel/cap_last_cap") > 0 && atoi(buf) == 40);
	CHECK("somaxconn", slurp("/proc/sys/net/core/somaxconn") > 0 && atoi(buf) == 4096);
	CHECK("net", slurp("/proc/net/unix") > 0 && has_line("Num       RefCount") && slurp("/proc/net/dev") > 0 && strstr(buf, "lo:"));
	fd = open("/proc/uptime", O_RDONLY);
	n = read(fd, buf, 3);
	CHECK("offsets", n == 3 && read(fd, buf + 3, 100) > 0 && strchr(buf, '\n') && read(fd, buf, 10) == 0 && lseek(fd, 0, SEEK_SET) == 0 && read(fd, buf, 10) > 0);
	close(fd);
	CHECK_ERR("no such file", open("/proc/nothing", O_RDONLY), ENOENT);
	CHECK_ERR("no creating", open("/proc/new", O_RDWR | O_CREAT, 0600), ENOENT);
	CHECK("cpu online", slurp("/sys/devices/system/cpu/online") > 0 && buf[0] == '0');
	CHECK("cpu possible", slurp("/sys/devices/system/cpu/possible") > 0 && buf[0] == '0');
	CHECK("thp", slurp("/sys/kernel/mm/transparent_hugepage/enabled") > 0 && strchr(buf, '['));
}

static void devices(void)
{
	int fd, n;
	char b[64], *m;
	struct stat st;

	fd = open("/dev/null", O_RDWR);
	CHECK("null", fd >= 0 && read(fd, b, 10) == 0 && write(fd, b, 10) == 10 && lseek(fd, 5, SEEK_SET) == 0);
	CHECK("null stat", fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == 0x103);
	close(fd);
	memset(b, 1, sizeof(b));
	fd = open("/dev/zero", O_RDWR);
	CHECK("zero", read(fd, b, 64) == 64 && b[0] == 0 && b[63] == 0 && write(fd, b, 5) == 5);
	CHECK_ERR("zero fault", read(fd, (void *)8, 10), EFAULT);
	m = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK("zero shared", m != MAP_FAILED && m[5000] == 0 && (m[0] = 7) == 7);
	munmap(m, 8192);
	m = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK("zero private", m != MAP_FAILED && m[0] == 0 && (m[4096] = 1) == 1);
	munmap(m, 8192);
	close(fd);
	fd = open("/dev/full", O_RDWR);
	CHECK("full", read(fd, b, 4) == 4);
	CHECK_ERR("full write", write(fd, b, 4), ENOSPC);
	close(fd);
	fd = open("/dev/urandom", O_RDONLY);
	CHECK("urandom", read(fd, buf, 100000) == 100000 && memcmp(buf, buf + 50000, 50000));
	close(fd);
	fd = open("/dev/random", O_RDWR);
	CHECK("random", read(fd, b, 64) == 64 && write(fd, b, 4) == 4);
	close(fd);
	CHECK("links", !strcmp(linkof("/dev/fd"), "/proc/self/fd") && !strcmp(linkof("/dev/stdout"), "/proc/self/fd/1"));
	CHECK("shm", stat("/dev/shm", &st) == 0 && (st.st_mode & 07777) == 01777);
	setsid();
	CHECK_ERR("no terminal", open("/dev/tty", O_RDWR), ENXIO);
}

static void terminals(void)
{
	int m = posix_openpt(O_RDWR | O_NOCTTY), s, n, st;
	struct termios t;
	struct winsize ws = {24, 80, 0, 0}, ws2;
	char b[300], *name;
	struct stat sb;
	pid_t pid;

	CHECK("ptmx", m >= 0);
	name = ptsname(m);
	CHECK_ERR("locked", open(name, O_RDWR | O_NOCTTY), EIO);
	CHECK("unlock", grantpt(m) == 0 && unlockpt(m) == 0);
	s = open(name, O_RDWR | O_NOCTTY);
	CHECK("slave", s >= 0 && isatty(s) && fstat(s, &sb) == 0 && S_ISCHR(sb.st_mode) && (sb.st_rdev >> 8) == 136);
	CHECK("ttyname", !strcmp(ttyname(s) ?: "", name));
	CHECK("peer", (n = ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY)) >= 0);
	close(n);
	CHECK("termios", tcgetattr(s, &t) == 0 && t.c_iflag == (ICRNL | IXON) && t.c_oflag == (OPOST | ONLCR) && t.c_lflag == (ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN) && t.c_cc[VINTR] == 3);
	CHECK("line", write(m, "ab\177c\r", 5) == 5 && read(s, b, 300) == 3 && !memcmp(b, "ac\n", 3));
	CHECK("echo", read(m, b, 300) == 8 && !memcmp(b, "ab\b \bc\r\n", 8));
	CHECK("output", write(s, "x\ny", 3) == 3 && read(m, b, 300) == 4 && !memcmp(b, "x\r\ny", 4));
	CHECK("eof", write(m, "\4", 1) == 1 && read(s, b, 10) == 0);
	write(m, "one two\27\25kill\25ok\n", 17);
	CHECK("werase kill", read(s, b, 300) == 3 && !memcmp(b, "ok\n", 3));
	read(m, b, 300);
	CHECK("winsize", ioctl(s, TIOCSWINSZ, &ws) == 0 && ioctl(m, TIOCGWINSZ, &ws2) == 0 && ws2.ws_col == 80 && ws2.ws_row == 24);
	CHECK_ERR("pgrp of no ctty", tcgetpgrp(s), ENOTTY);
	cfmakeraw(&t);
	t.c_cc[VMIN] = 3;
	tcsetattr(s, TCSANOW, &t);
	write(m, "a\3b", 3);
	CHECK("raw", read(s, b, 300) == 3 && b[1] == 3);
	t.c_cc[VMIN] = 0;
	t.c_cc[VTIME] = 1;
	tcsetattr(s, TCSANOW, &t);
	CHECK("vtime", read(s, b, 10) == 0);
	CHECK("inq", write(m, "qqq", 3) == 3 && !usleep(20000) && ioctl(s, FIONREAD, &n) == 0 && n == 3);
	CHECK("flush", tcflush(s, TCIFLUSH) == 0 && ioctl(s, FIONREAD, &n) == 0 && n == 0);
	n = 1;
	CHECK("packet", ioctl(m, TIOCPKT, &n) == 0 && write(s, "p", 1) == 1 && read(m, b, 10) == 2 && b[0] == 0 && b[1] == 'p');
	close(s);
	CHECK_ERR("slave gone", read(m, b, 10), EIO);
	s = open(name, O_RDWR | O_NOCTTY);
	close(m);
	CHECK("master gone", read(s, b, 10) == 0);
	CHECK_ERR("write to none", write(s, b, 10), EIO);
	close(s);
	CHECK_ERR("node gone", access(name, F_OK), ENOENT);

	// A session on a terminal: ^C reaches the foreground group; the end of the leader hangs up.
	m = posix_openpt(O_RDWR | O_NOCTTY);
	grantpt(m);
	unlockpt(m);
	name = ptsname(m);
	pid = fork();
	if (!pid) {
		setsid();
		s = open(name, O_RDWR);
		_exit(tcgetpgrp(s) == getpid() && tcgetsid(s) == getpid() && open("/dev/tty", O_RDWR) >= 0 && pause() ? 1 : 2);
	}
	usleep(100000);
	CHECK("foreground", ioctl(m, TIOCGPGRP, &n) == 0 && n == pid);
	write(m, "\3", 1);
	CHECK("intr", waitpid(pid, &st, 0) == pid && WIFSIGNALED(st) && WTERMSIG(st) == 2);
	CHECK("hangup read", read(m, b, 2) == 2);
	CHECK_ERR("hangup", read(m, b, 10), EIO);
	close(m);
}

int main(void)
{
	self();
	others();
	machine();
	devices();
	terminals();
	CHECK_DONE();
}
