/* Who this process is to the kernel: what decides whether it may use userfaultfd,
 * and how to grant it that. Reads files of /proc, /sys and /etc; allocates and
 * uses stdio: for the main thread, not while something is measured. */
#ifndef RDB_UFFD_KERNEL_PROCESS_H
#define RDB_UFFD_KERNEL_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* /dev/userfaultfd, as this process sees it. */
enum userfaultfd_device {
    DEVICE_UNKNOWN_TO_KERNEL, /* before Linux 6.1 */
    DEVICE_HIDDEN,            /* the kernel has it, this process's /dev does not */
    DEVICE_DENIED,            /* by its owner and mode */
    DEVICE_BARRED,            /* by something else: a cgroup's list of devices */
    DEVICE_OPENS,
};

struct process_facts {
    uid_t user;
    gid_t group;
    char user_name[64]; /* the number when the name is not known; likewise below */
    char group_name[64];
    bool may_trace;   /* CAP_SYS_PTRACE, which the system call asks for */
    int seccomp;      /* 0: no filter, 1: strict, 2: filtered; -1: not known */
    int unprivileged; /* vm.unprivileged_userfaultfd; -1: no such sysctl */
    enum userfaultfd_device device;
    char device_mode[128]; /* "root:root 0600", "" when there is no node */
    bool in_container;     /* as far as it can be told */
};

/* What cannot be found out is told as not known; nothing fails. Opens the device, as a
 * try, if there is one. */
void process_get_facts(struct process_facts *facts);

/* The first line of a file of the system that begins with `start`, without that; false when
 * there is none. */
bool process_find_line(const char *path, const char *start, char *rest, size_t size);

enum huge_page_mode {
    HUGE_PAGES_UNKNOWN,
    HUGE_PAGES_ALWAYS,
    HUGE_PAGES_ON_ADVICE,
    HUGE_PAGES_NEVER
};
/* /sys/kernel/mm/transparent_hugepage/enabled */
enum huge_page_mode process_huge_page_mode(void);

/* Whether this process has given huge pages up (PR_SET_THP_DISABLE): 0, or what
 * process_refuse_huge_pages() takes to have it so again; -errno. */
int process_refuses_huge_pages(void);
/* 0 or -errno. */
int process_refuse_huge_pages(int how);

#endif
