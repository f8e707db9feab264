/*
 * tsantest.c: ThreadSanitizer sees what GLib's threads order, and what they do not
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Built with -Db_sanitize=thread only.  Each case is a way of handing data from thread
 * to thread, once used right and once wrong, each in a process of its own: the one has
 * to be silent, the other to be reported.  Functions on containers come in a list of
 * their own: each is called while another thread may change the container.  Together
 * they cover all that functions.txt says is wrapped.
 */

#include "config.h"

#include "tsantestlib.h"

#include <fcntl.h>
#include <glib-unix.h>
#include <unistd.h>

#define TEST_RACE "*WARNING: ThreadSanitizer: data race*"
#define TEST_RACE_BY(creator) TEST_RACE "created by main thread at:*" creator "*"
#define TEST_RACE_UNDER TEST_RACE "Mutex * created at:*__wrap_g_mutex_init*"
#define TEST_CLEARED "*WARNING: ThreadSanitizer: destroy of a locked mutex*"
#define TEST_INVERSION "*WARNING: ThreadSanitizer: lock-order-inversion*"

static GMutex testLock;
static GMutex testOther;
static GCond testChanged;
static gboolean testReady; /* guarded by testLock */
static gint testValue;     /* what is handed over */
static gint testRead;      /* what was found, for the main thread only */

/* Mutexes */

static gpointer
testCountLocked(gpointer lock)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(lock);

    testValue++;
    return NULL;
}

static void
testCountLockedHere(gpointer lock)
{
    testCountLocked(lock);
}

static void
testMutexRight(void)
{
    GMutex *made = g_new0(GMutex, 1);

    testWithThread(testCountLocked, &testLock, testCountLockedHere);
    g_mutex_init(made);
    testWithThread(testCountLocked, made, testCountLockedHere);
    g_mutex_clear(made);
    g_free(made);
    g_assert_cmpint(testValue, ==, 4);
}

static void
testCountUnlocked(gpointer lock)
{
    testValue++;
}

static void
testMutexWrong(void)
{
    GMutex made;

    g_mutex_init(&made);
    testWithThread(testCountLocked, &made, testCountUnlocked);
    g_mutex_clear(&made);
}

static void
testMutexCleared(void)
{
    GMutex made;

    g_mutex_init(&made);
    g_mutex_lock(&made);
    g_mutex_clear(&made);
}

static void
testOtherLockHere(gpointer lock)
{
    testCountLocked(&testOther);
}

static void
testMutexOther(void)
{
    testWithThread(testCountLocked, &testLock, testOtherLockHere);
}

static void
testInOrder(GMutex *outer, GMutex *inner)
{
    g_mutex_lock(outer);
    g_mutex_lock(inner);
    g_mutex_unlock(inner);
    g_mutex_unlock(outer);
}

static void
testOrderRight(void)
{
    testInOrder(&testLock, &testOther);
    testInOrder(&testLock, &testOther);
}

static void
testOrderWrong(void)
{
    testInOrder(&testLock, &testOther);
    testInOrder(&testOther, &testLock);
}

/* Conditions */

/* The lock is free when the other one waits. */
static gpointer
testSignalAfter(gpointer data)
{
    testAwait(1);
    testValue = 1;
    g_mutex_lock(&testLock);
    testReady = TRUE;
    g_cond_broadcast(&testChanged);
    g_mutex_unlock(&testLock);
    return NULL;
}

static gpointer
testSignalBefore(gpointer data)
{
    testAwait(1);
    g_mutex_lock(&testLock);
    testReady = TRUE;
    g_cond_broadcast(&testChanged);
    g_mutex_unlock(&testLock);
    testValue = 1;
    testTell();
    return NULL;
}

static void
testWait(gpointer data)
{
    g_mutex_lock(&testLock);
    testTell();
    while (!testReady)
        g_cond_wait(&testChanged, &testLock);
    g_mutex_unlock(&testLock);
}

static void
testWaitUntil(gpointer data)
{
    g_mutex_lock(&testLock);
    testTell();
    while (!testReady)
        g_cond_wait_until(&testChanged, &testLock, g_get_monotonic_time() + 1000);
    g_mutex_unlock(&testLock);
}

static void
testWaitAndRead(gpointer data)
{
    void (*wait)(gpointer data) = data;

    wait(NULL);
    testRead = testValue;
}

static void
testWaitLongAndRead(gpointer data)
{
    void (*wait)(gpointer data) = data;

    wait(NULL);
    testAwait(2);
    testRead = testValue;
}

static void
testCondRight(void)
{
    testWithThread(testSignalAfter, testWait, testWaitAndRead);
    g_assert_cmpint(testRead, ==, 1);
}

static void
testCondWrong(void)
{
    testWithThread(testSignalBefore, testWait, testWaitLongAndRead);
}

static void
testCondUntilRight(void)
{
    testWithThread(testSignalAfter, testWaitUntil, testWaitAndRead);
    g_assert_cmpint(testRead, ==, 1);
}

static void
testCondUntilWrong(void)
{
    testWithThread(testSignalBefore, testWaitUntil, testWaitLongAndRead);
}

/* Once */

static gsize testOnce;

static gpointer
testOnceEnter(gpointer late)
{
    if (g_once_init_enter(&testOnce)) {
        if (!late)
            testValue = 1;
        g_once_init_leave(&testOnce, 1);
        if (late)
            testValue = 1;
        testTell();
    }
    return NULL;
}

static void
testOnceRead(gpointer late)
{
    testAwait(1);
    testOnceEnter(late);
    testRead = testValue;
}

/* Once thread @data is asleep: it waits for this one, in GLib. */
static void
testAwaitSleep(gpointer data)
{
    g_autofree gchar *path =
        g_strdup_printf("/proc/self/task/%d/stat", GPOINTER_TO_INT(data));
    gboolean asleep = FALSE;

    while (!asleep) {
        g_autofree gchar *text = NULL;

        g_usleep(100);
        g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
        asleep = strstr(text, ") S ") != NULL;
    }
}

static gpointer
testOnceWait(gpointer data)
{
    gint *waiter = data;

    testAwait(1);
    __atomic_store_n(waiter, (gint)gettid(), __ATOMIC_RELAXED);
    g_assert_false(g_once_init_enter(&testOnce));
    testRead = testValue;
    return NULL;
}

static void
testOnceFill(gpointer data)
{
    gint *waiter = data;

    g_assert_true(g_once_init_enter(&testOnce));
    testTell();
    while (__atomic_load_n(waiter, __ATOMIC_RELAXED) == 0)
        g_usleep(100);
    testAwaitSleep(GINT_TO_POINTER(__atomic_load_n(waiter, __ATOMIC_RELAXED)));
    testValue = 1;
    g_once_init_leave(&testOnce, 1);
}

static void
testOnceRight(void)
{
    testWithThread(testOnceEnter, NULL, testOnceRead);
    g_assert_cmpint(testRead, ==, 1);
}

static void
testOnceWaited(void)
{
    gint waiter = 0;

    testWithThread(testOnceWait, &waiter, testOnceFill);
    g_assert_cmpint(testRead, ==, 1);
}

static void
testOnceWrong(void)
{
    testWithThread(testOnceEnter, GINT_TO_POINTER(TRUE), testOnceRead);
}

/* Threads */

static gpointer
testThreadCount(gpointer data)
{
    testValue++;
    return NULL;
}

static void
testThreadRight(void)
{
    testValue = 1;
    g_thread_join(g_thread_new("one", testThreadCount, NULL));
    g_thread_join(g_thread_try_new("two", testThreadCount, NULL, NULL));
    g_assert_cmpint(testValue, ==, 3);
}

static void
testThreadWrong(void)
{
    testWithThread(testThreadCount, NULL, testCountUnlocked);
}

static void
testThreadTriedWrong(void)
{
    GThread *thread = g_thread_try_new("other", testThreadCount, NULL, NULL);

    testCountUnlocked(NULL);
    g_thread_join(thread);
}

/* Pools */

static void
testPoolTask(gpointer data, gpointer opaque)
{
    gint *value = data;

    g_assert_true(opaque == &testLock);
    (*value)++;
}

static GThreadPool *
testPoolNew(GFunc func)
{
    return g_thread_pool_new(func, &testLock, 2, FALSE, NULL);
}

static void
testPoolRight(void)
{
    GThreadPool *pool = testPoolNew(testPoolTask);
    gint second = 1;

    testValue = 1;
    g_thread_pool_push(pool, &testValue, NULL);
    g_thread_pool_push(pool, &second, NULL);
    g_thread_pool_free(pool, FALSE, TRUE);
    g_assert_cmpint(testValue + second, ==, 4);
}

static void
testPoolWrong(void)
{
    GThreadPool *pool = testPoolNew(testPoolTask);

    g_thread_pool_push(pool, &testValue, NULL);
    testValue = 1;
    g_thread_pool_free(pool, FALSE, TRUE);
}

/* Both tasks are under way before either goes on. */
static void
testPoolPair(gpointer data, gpointer opaque)
{
    testTell();
    testAwait(2);
    testPoolTask(data, opaque);
}

static void
testPoolTasks(void)
{
    GThreadPool *pool = testPoolNew(testPoolPair);

    g_thread_pool_push(pool, &testValue, NULL);
    g_thread_pool_push(pool, &testValue, NULL);
    g_thread_pool_free(pool, FALSE, TRUE);
}

/* Queues */

static gpointer
testQueueTake(gpointer queue)
{
    gint *value = g_async_queue_pop(queue);

    (*value)++;
    return NULL;
}

static void
testQueueGive(gpointer queue)
{
    testValue = 1;
    g_async_queue_push(queue, &testValue);
}

static void
testQueueGiveEarly(gpointer queue)
{
    g_async_queue_push(queue, &testValue);
    testValue = 1;
}

static void
testQueueRight(void)
{
    g_autoptr(GAsyncQueue) queue = g_async_queue_new();

    testWithThread(testQueueTake, queue, testQueueGive);
    g_assert_cmpint(testValue, ==, 2);
}

static void
testQueueWrong(void)
{
    g_autoptr(GAsyncQueue) queue = g_async_queue_new();

    testWithThread(testQueueTake, queue, testQueueGiveEarly);
}

/* References */

typedef struct testShared testShared;
struct testShared {
    gatomicrefcount references;
    gint values[2];
};

static void
testSharedUnref(testShared *shared)
{
    if (!g_atomic_ref_count_dec(&shared->references))
        return;
    testRead = shared->values[0] + shared->values[1];
    g_free(shared);
}

static gpointer
testSharedUse(gpointer data)
{
    testShared *shared = data;

    shared->values[0] = 1;
    testSharedUnref(shared);
    return NULL;
}

static void
testSharedUseHere(gpointer data)
{
    testShared *shared = data;

    shared->values[1] = 2;
    testSharedUnref(shared);
}

static void
testSharedBoth(GThreadFunc func, void (*here)(gpointer data))
{
    testShared *shared = g_new0(testShared, 1);

    g_atomic_ref_count_init(&shared->references);
    g_atomic_ref_count_inc(&shared->references);
    testWithThread(func, shared, here);
}

static void
testReferencesRight(void)
{
    testSharedBoth(testSharedUse, testSharedUseHere);
    g_assert_cmpint(testRead, ==, 3);
}

static gpointer
testSharedTooLate(gpointer data)
{
    testShared *shared = data;

    testSharedUnref(shared);
    testTell();
    shared->values[0] = 1;
    return NULL;
}

static void
testSharedLast(gpointer data)
{
    testAwait(1);
    testSharedUseHere(data);
}

static void
testReferencesWrong(void)
{
    testSharedBoth(testSharedTooLate, testSharedLast);
}

static gpointer
testBoxRelease(gpointer box)
{
    testRead = *(gint *)box;
    g_atomic_rc_box_release(box);
    testTell();
    return NULL;
}

static void
testBoxReleaseHere(gpointer box)
{
    testAwait(1);
    g_atomic_rc_box_release(box);
}

static void
testBoxChangeHere(gpointer box)
{
    *(gint *)box = 1;
    g_atomic_rc_box_release(box);
}

static void
testBoxRight(void)
{
    gint *box = g_atomic_rc_box_new0(gint);

    testWithThread(testBoxRelease, g_atomic_rc_box_acquire(box), testBoxReleaseHere);
}

static void
testBoxWrong(void)
{
    gint *box = g_atomic_rc_box_new0(gint);

    testWithThread(testBoxRelease, g_atomic_rc_box_acquire(box), testBoxChangeHere);
}

/* Memory */

static gpointer
testFreeLook(gpointer data)
{
    testRead = *(gint *)data;
    testTell();
    return NULL;
}

static void
testFreeSoon(gpointer data)
{
    testAwait(1);
    g_free(data);
}

static void
testFreeRight(void)
{
    gint *value = g_new0(gint, 1);

    g_thread_join(g_thread_new("look", testFreeLook, value));
    g_free(value);
    g_free(NULL);
}

static void
testFreeWrong(void)
{
    testWithThread(testFreeLook, g_new0(gint, 1), testFreeSoon);
}

/* Sources */

static gboolean
testSourceRun(gpointer data)
{
    testRead = *(gint *)data;
    return G_SOURCE_REMOVE;
}

static void
testSourceGone(gpointer data)
{
    testReady = TRUE;
}

static gpointer
testSourceAfter(gpointer data)
{
    g_autoptr(GSource) source = g_idle_source_new();

    g_source_set_callback(source, testSourceRun, &testValue, testSourceGone);
    testValue = 1;
    g_source_attach(source, NULL);
    return NULL;
}

static gpointer
testSourceBefore(gpointer data)
{
    g_autoptr(GSource) source = g_idle_source_new();

    g_source_set_callback(source, testSourceRun, &testValue, testSourceGone);
    g_source_attach(source, NULL);
    testValue = 1;
    testTell();
    return NULL;
}

static gpointer
testTimeoutAfter(gpointer data)
{
    testValue = 1;
    g_timeout_add(1, testSourceRun, &testValue);
    return NULL;
}

static gpointer
testTimeoutBefore(gpointer data)
{
    g_timeout_add(1, testSourceRun, &testValue);
    testValue = 1;
    testTell();
    return NULL;
}

static void
testIterate(gpointer data)
{
    while (testRead == 0)
        g_main_context_iteration(NULL, TRUE);
}

static void
testIterateLate(gpointer data)
{
    testAwait(1);
    testIterate(NULL);
}

/* A source of ours looks at its callback's data in its own dispatch; so does GLib's. */
static gboolean
testFdReadable(gint fd, GIOCondition condition, gpointer data)
{
    g_assert_cmpint(condition, ==, G_IO_IN);
    testRead = *(gint *)data;
    return G_SOURCE_REMOVE;
}

static gpointer
testFdAfter(gpointer data)
{
    g_autoptr(GSource) source = g_unix_fd_source_new(GPOINTER_TO_INT(data), G_IO_IN);

    testValue = 1;
    g_source_set_callback(source, G_SOURCE_FUNC(testFdReadable), &testValue, NULL);
    g_source_attach(source, NULL);
    return NULL;
}

static void
testSourceRight(void)
{
    int fds[2];

    testWithThread(testSourceAfter, NULL, testIterate);
    g_assert_true(testReady);
    testRead = 0;
    g_assert_cmpint(pipe(fds), ==, 0);
    g_assert_cmpint(write(fds[1], "x", 1), ==, 1);
    testWithThread(testFdAfter, GINT_TO_POINTER(fds[0]), testIterate);
    close(fds[0]);
    close(fds[1]);
}

static void
testSourceWrong(void)
{
    testWithThread(testSourceBefore, NULL, testIterateLate);
}

static void
testTimeoutRight(void)
{
    testWithThread(testTimeoutAfter, NULL, testIterate);
}

static void
testTimeoutWrong(void)
{
    testWithThread(testTimeoutBefore, NULL, testIterateLate);
}

/* Files: that one was written before another was read orders nothing. */

static gint
testFileOpen(void)
{
    gint fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);

    g_assert_cmpint(fd, >=, 0);
    return fd;
}

static gpointer
testFileWrite(gpointer data)
{
    gint fd = testFileOpen();

    testValue = 1;
    g_assert_cmpint(write(fd, "x", 1), ==, 1);
    close(fd);
    testTell();
    return NULL;
}

static void
testFileRead(gpointer data)
{
    gint fd = testFileOpen();
    gchar byte;

    testAwait(1);
    g_assert_cmpint(read(fd, &byte, 1), ==, 0);
    close(fd);
    testRead = testValue;
}

static void
testFileWrong(void)
{
    testWithThread(testFileWrite, NULL, testFileRead);
}

typedef struct testCase testCase;
struct testCase {
    const gchar *name;
    const gchar *functions; /* wrapped ones that it proves */
    void (*func)(void);
    const gchar *report; /* a pattern, or NULL: silent */
};

static const testCase testCases[] = {
    {"mutex/right", "", testMutexRight, NULL},
    {"mutex/wrong", "g_mutex_init g_mutex_lock g_mutex_unlock", testMutexWrong,
     TEST_RACE_UNDER},
    {"mutex/cleared", "g_mutex_clear", testMutexCleared, TEST_CLEARED},
    {"mutex/other", "", testMutexOther, TEST_RACE},
    {"order/right", "", testOrderRight, NULL},
    {"order/wrong", "", testOrderWrong, TEST_INVERSION},
    {"cond/right", "", testCondRight, NULL},
    {"cond/wrong", "g_cond_wait", testCondWrong, TEST_RACE},
    {"cond-until/right", "", testCondUntilRight, NULL},
    {"cond-until/wrong", "g_cond_wait_until", testCondUntilWrong, TEST_RACE},
    {"once/right", "g_once_init_leave", testOnceRight, NULL},
    {"once/waited", "g_once_init_enter", testOnceWaited, NULL},
    {"once/wrong", "", testOnceWrong, TEST_RACE},
    {"thread/right", "", testThreadRight, NULL},
    {"thread/wrong", "g_thread_new", testThreadWrong, TEST_RACE_BY("testWithThread")},
    {"thread/tried", "g_thread_try_new", testThreadTriedWrong,
     TEST_RACE_BY("testThreadTriedWrong")},
    {"pool/right", "g_thread_pool_new g_thread_pool_free", testPoolRight, NULL},
    {"pool/wrong", "g_thread_pool_push", testPoolWrong, TEST_RACE},
    {"pool/tasks", "", testPoolTasks, TEST_RACE},
    {"queue/right", "g_async_queue_pop", testQueueRight, NULL},
    {"queue/wrong", "g_async_queue_push", testQueueWrong, TEST_RACE},
    {"references/right", "g_atomic_ref_count_dec", testReferencesRight, NULL},
    {"references/wrong", "", testReferencesWrong, TEST_RACE},
    {"box/right", "g_atomic_rc_box_release", testBoxRight, NULL},
    {"box/wrong", "", testBoxWrong, TEST_RACE},
    {"free/right", "", testFreeRight, NULL},
    {"free/wrong", "", testFreeWrong, TEST_RACE},
    {"source/right", "g_source_attach", testSourceRight, NULL},
    {"source/wrong", "g_source_set_callback", testSourceWrong, TEST_RACE},
    {"timeout/right", "g_timeout_add", testTimeoutRight, NULL},
    {"timeout/wrong", "", testTimeoutWrong, TEST_RACE},
    {"file/wrong", "", testFileWrong, TEST_RACE},
};

static void
testRunCase(gconstpointer data)
{
    const testCase *wanted = data;

    if (g_test_subprocess()) {
        wanted->func();
        return;
    }
    /* A report that nobody wants is to be read. */
    g_test_trap_subprocess(NULL, 0,
                           wanted->report ? 0 : G_TEST_SUBPROCESS_INHERIT_STDERR);
    if (wanted->report) {
        g_test_trap_assert_failed();
        g_test_trap_assert_stderr(wanted->report);
    } else {
        g_test_trap_assert_passed();
    }
}

static void
testIsProven(const gchar *function)
{
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(testCases); i++) {
        g_auto(GStrv) names = g_strsplit(testCases[i].functions, " ", -1);

        if (g_strv_contains((const gchar *const *)names, function))
            return;
    }
    g_test_message("no case for %s", function);
    g_test_fail();
}

static void
testAllAreProven(void)
{
    testForEachListed("orders ", testIsProven);
}

int
main(int argc, char **argv)
{
    gsize i;

    /* Reports are wanted on standard error. */
    g_unsetenv("TSAN_OPTIONS");
    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < G_N_ELEMENTS(testCases); i++) {
        g_autofree gchar *path = g_strconcat("/tsan/", testCases[i].name, NULL);

        g_test_add_data_func(path, &testCases[i], testRunCase);
    }
    g_test_add_func("/tsan/all-are-proven", testAllAreProven);
    return g_test_run();
}
