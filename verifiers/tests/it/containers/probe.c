// The program in the images of the tests: its first argument says what it tries.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static const char *word(long result) { return result < 0 ? strerror(errno) : "ok"; }

static int by_name(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

static void list(const char *path, const char *only) {
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, by_name);
    printf("%s:", path);
    if (count < 0) printf(" %s", strerror(errno));
    for (int i = 0; i < count; i++)
        if (entries[i]->d_name[0] != '.' && (!only || strspn(entries[i]->d_name, only) == strlen(entries[i]->d_name)))
            printf(" %s", entries[i]->d_name);
    printf("\n");
}

static void status(const char *key) {
    char line[256];
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, key, strlen(key))) printf("%s", line);
    if (file) fclose(file);
}

static int put(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    if (!file) return -1;
    fputs(text, file);
    return fclose(file);
}

// Prints a file, as far as it can be read.
static void show(const char *path) {
    char buffer[4096];
    FILE *file = fopen(path, "r");
    if (!file) { printf("%s: %s\n", path, strerror(errno)); return; }
    printf("%s: ", path);
    for (size_t count; (count = fread(buffer, 1, sizeof buffer, file)) > 0;) fwrite(buffer, 1, count, stdout);
    fclose(file);
}

static void isolation(const char *host_file, int port) {
    char name[64] = "";
    gethostname(name, sizeof name);
    printf("uid %d gid %d pid %d host %s\n", getuid(), getgid(), getpid(), name);
    list("/proc", "0123456789");
    list("/dev", NULL);
    list("/sys", NULL);
    list("/sys/fs/cgroup", NULL);
    for (const char **key = (const char *[]){"CapEff", "CapBnd", "NoNewPrivs", "Seccomp:", NULL}; *key; key++) status(*key);
    printf("host file: %s\n", word(open(host_file, O_RDONLY)));
    printf("write /: %s\n", word(put("/x", "x")));
    printf("write /etc/x: %s\n", word(put("/etc/x", "x")));
    printf("write /proc/sys: %s\n", word(open("/proc/sys/kernel/hostname", O_WRONLY)));
    printf("bytes of /proc/interrupts: %ld\n", (long)read(open("/proc/interrupts", O_RDONLY), name, 1));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int tcp = socket(AF_INET, SOCK_STREAM, 0);
    printf("connect here: %s\n", word(connect(tcp, (struct sockaddr *)&address, sizeof address)));
    address.sin_addr.s_addr = htonl(0xc0000201); // 192.0.2.1
    printf("connect there: %s\n", word(connect(tcp, (struct sockaddr *)&address, sizeof address)));
    printf("vsock: %s\n", word(socket(40, SOCK_STREAM, 0)));
    printf("raw socket: %s\n", word(socket(AF_INET, SOCK_RAW, 1)));
    printf("mount: %s\n", word(mount("none", "/tmp", "tmpfs", 0, "")));
    printf("umount: %s\n", word(umount2("/proc", MNT_DETACH)));
    printf("unshare: %s\n", word(unshare(CLONE_NEWUSER)));
    printf("clone: %s\n", word(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0)));
    printf("clone3: %s\n", word(syscall(SYS_clone3, NULL, 0)));
    printf("bpf: %s\n", word(syscall(SYS_bpf, 0, NULL, 0)));
    printf("keyctl: %s\n", word(syscall(SYS_keyctl, 0, -3, 0)));
    printf("ptrace: %s\n", word(syscall(SYS_ptrace, 0, 0, 0, 0)));
    printf("chroot: %s\n", word(chroot("/tmp")));
    printf("mknod: %s\n", word(mknod("/tmp/disk", S_IFBLK | 0600, makedev(8, 0))));
    printf("sethostname: %s\n", word(sethostname("x", 1)));
    printf("settimeofday: %s\n", word(clock_settime(CLOCK_REALTIME, &(struct timespec){0})));
    printf("kill all: %s\n", word(kill(-1, 0)));
}

int main(int count, char **words) {
    const char *what = count > 1 ? words[1] : "";
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    if (!strcmp(what, "write")) {
        for (int i = 2; i + 1 < count; i += 2)
            if (put(words[i], words[i + 1])) { printf("%s: %s\n", words[i], strerror(errno)); return 1; }
        printf("written\n");
        return 0;
    }
    if (!strcmp(what, "show")) for (int i = 2; i < count; i++) show(words[i]);
    if (!strcmp(what, "list")) for (int i = 2; i < count; i++) list(words[i], NULL);
    if (!strcmp(what, "stat"))
        for (int i = 2; i < count; i++) {
            struct stat it;
            if (lstat(words[i], &it)) printf("%s: %s\n", words[i], strerror(errno));
            else printf("%s: %o uid %d links %d at %ld\n", words[i], it.st_mode, it.st_uid, (int)it.st_nlink, (long)it.st_mtime);
        }
    if (!strcmp(what, "isolation")) isolation(words[2], atoi(words[3]));
    if (!strcmp(what, "cat")) for (int byte; (byte = getchar()) != EOF;) putchar(byte);
    if (!strcmp(what, "env")) {
        char folder[4096];
        printf("in %s:", getcwd(folder, sizeof folder));
        for (char **variable = environ; *variable; variable++) printf(" %s", *variable);
        printf("\n");
    }
    if (!strcmp(what, "limits")) {
        struct rlimit cpu, files, core;
        getrlimit(RLIMIT_CPU, &cpu);
        getrlimit(RLIMIT_NOFILE, &files);
        getrlimit(RLIMIT_CORE, &core);
        printf("cpu %ld files %ld core %ld\n", (long)cpu.rlim_max, (long)files.rlim_max, (long)core.rlim_max);
    }
    if (!strcmp(what, "exit")) return atoi(words[2]);
    if (!strcmp(what, "signal")) {
        if (!fork()) { kill(getpid(), atoi(words[2])); pause(); }
        // As pid 1 it could not die of a signal that it sends itself.
        int ended;
        wait(&ended);
        return WIFSIGNALED(ended) ? 128 + WTERMSIG(ended) : 1;
    }
    if (!strcmp(what, "memory"))
        for (;;) { char *page = malloc(1 << 20); if (page) memset(page, 1, 1 << 20); }
    // A child dies of its hunger, and the job goes on as if nothing had happened.
    if (!strcmp(what, "memory-of-a-child")) {
        if (!fork()) for (;;) { char *page = malloc(1 << 20); if (page) memset(page, 1, 1 << 20); }
        int ended;
        wait(&ended);
        printf("done\n");
    }
    if (!strcmp(what, "fork")) {
        for (int i = 0; i < 2000; i++) if (!fork()) { pause(); _exit(0); }
        printf("done\n");
    }
    if (!strcmp(what, "disk")) {
        static char zeros[65536];
        int file = open(words[2], O_WRONLY | O_CREAT, 0600);
        while (write(file, zeros, sizeof zeros) > 0) {}
        printf("full: %s\n", strerror(errno));
    }
    if (!strcmp(what, "sparse")) {
        int file = open(words[2], O_WRONLY | O_CREAT, 0600);
        printf("sparse: %s\n", word(ftruncate(file, 1L << 40)));
    }
    if (!strcmp(what, "flood")) for (;;) puts("flood");
    if (!strcmp(what, "loop")) { put("/out/started", ""); for (;;) {} }
    if (!strcmp(what, "nanoseconds")) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        printf("%ld\n", (long)now.tv_nsec);
    }
    if (!strcmp(what, "processors")) {
        cpu_set_t set;
        sched_getaffinity(0, sizeof set, &set);
        printf("%d\n", CPU_COUNT(&set));
    }
    if (!strcmp(what, "links")) {
        // What could lead a careless collector out.
        symlink("/etc/passwd", "/out/link");
        symlink("/etc", "/out/folder");
        rename("/tmp/results", "/tmp/away");
        symlink("/etc", "/tmp/results");
        mkfifo("/out/pipe", 0600);
        put("/out/file", "kept");
    }
    return 0;
}
