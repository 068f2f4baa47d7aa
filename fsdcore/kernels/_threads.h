/* Helpers: threads that this process keeps for its products. A call opens a job, works on it itself, and any helper
 * that is free joins. Nobody waits for a helper that never came: what is left of a job is taken unit by unit.
 *
 * A layer may take no longer than waking a thread does, so a helper looks out for the next job for a moment before it
 * sleeps.
 */

#include <pthread.h>
#include <sched.h>
#include <time.h>

#define MOST_HELPERS 63
#define MOST_OPEN 64
/* How long a helper looks out for work before it sleeps, and how long between two looks at the clock. */
#define LOOK_OUT_NANOSECONDS 100000
#define LOOKS 64

typedef struct {
    void (*work)(void *job, int number);
    void *job;
    int wanted, joined, busy;
} Open;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t opened, left;
    Open *open[MOST_OPEN];
    int count, started, asleep;
    int64_t seats;
} crew = {.lock = PTHREAD_MUTEX_INITIALIZER, .opened = PTHREAD_COND_INITIALIZER, .left = PTHREAD_COND_INITIALIZER};

static inline void breathe(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Wait until `*value` is no longer below `least`: others are at work on it and need no sleep to finish. */
static void await_at_least(const int64_t *value, int64_t least) {
    for (int64_t looks = 1; __atomic_load_n(value, __ATOMIC_ACQUIRE) < least; looks++)
        if (looks % LOOKS)
            breathe();
        else
            sched_yield();
}

static void look_out(void) {
    int64_t end = nanoseconds() + LOOK_OUT_NANOSECONDS;
    do
        for (int look = 0; look < LOOKS; look++) {
            if (__atomic_load_n(&crew.seats, __ATOMIC_ACQUIRE) > 0) return;
            breathe();
        }
    while (nanoseconds() < end);
}

/* The open job with a free seat, if there is one; the lock is held. */
static Open *find_seat(void) {
    for (int i = 0; i < crew.count; i++)
        if (crew.open[i]->joined < crew.open[i]->wanted) return crew.open[i];
    return NULL;
}

static void help(void *nothing) {
    (void)nothing;
    pthread_mutex_lock(&crew.lock);
    for (;;) {
        Open *open = find_seat();
        if (!open) {
            pthread_mutex_unlock(&crew.lock);
            look_out();
            pthread_mutex_lock(&crew.lock);
            open = find_seat();
        }
        while (!open) {
            crew.asleep++;
            pthread_cond_wait(&crew.opened, &crew.lock);
            crew.asleep--;
            open = find_seat();
        }
        int number = ++open->joined;
        open->busy++;
        __atomic_fetch_sub(&crew.seats, 1, __ATOMIC_RELAXED);
        pthread_mutex_unlock(&crew.lock);
        open->work(open->job, number);
        pthread_mutex_lock(&crew.lock);
        if (--open->busy == 0) pthread_cond_broadcast(&crew.left);
    }
}

static void start_helpers(int wanted) {
    while (crew.started < wanted && crew.started < MOST_HELPERS) {
        /* By Python's function, which needs no GIL: pthread_create of a new glibc would keep the module from older ones.
         * Without helpers the work is done all the same. */
        if (PyThread_start_new_thread(help, NULL) == (unsigned long)-1) return;
        crew.started++;
    }
}

/* A forked child has the lock and the counts, but not the threads. */
static void after_fork(void) {
    pthread_mutex_init(&crew.lock, NULL);
    pthread_cond_init(&crew.opened, NULL);
    pthread_cond_init(&crew.left, NULL);
    crew.count = crew.started = crew.asleep = 0;
    crew.seats = 0;
}

static int open_job(Open *open) {
    pthread_mutex_lock(&crew.lock);
    int room = crew.count < MOST_OPEN;
    if (room) {
        start_helpers(open->wanted);
        crew.open[crew.count++] = open;
        __atomic_fetch_add(&crew.seats, open->wanted, __ATOMIC_RELEASE);
        if (crew.asleep) pthread_cond_broadcast(&crew.opened);
    }
    pthread_mutex_unlock(&crew.lock);
    return room;
}

static void close_job(Open *open) {
    pthread_mutex_lock(&crew.lock);
    int at = 0;
    while (crew.open[at] != open) at++;
    crew.open[at] = crew.open[--crew.count];
    __atomic_fetch_sub(&crew.seats, open->wanted - open->joined, __ATOMIC_RELAXED);
    while (open->busy) pthread_cond_wait(&crew.left, &crew.lock);
    pthread_mutex_unlock(&crew.lock);
}

/* Do `work` as number 0, with up to `threads - 1` helpers that have the numbers from 1. */
static void together(void (*work)(void *, int), void *job, int threads) {
    Open open = {work, job, threads - 1, 0, 0};
    int shared = threads > 1 && open_job(&open);
    work(job, 0);
    if (shared) close_job(&open);
}
