/*
 * checkpoint_tsan.c: GLib's threads as ThreadSanitizer sees them
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Only in a build with -Db_sanitize=thread.  Distributions' GLib is not instrumented
 * and locks by futexes of its own, which the sanitizer does not know: what is guarded
 * by a GMutex looks like a race.  So each call that our objects make of a GLib function
 * which orders threads comes here.  GLib's own function still does the work, and the
 * sanitizer is told what it promises, and no more than that: who misuses it is found.
 *
 * Mutexes are told as mutexes, so that reports name them and the order in which they
 * are taken is judged, too.  Whatever hands data over is a release before and an
 * acquire behind.  pthread_create(), pthread_join() and atomic operations are seen as
 * they are.
 *
 * Also here: how the sanitizer is set up, and what of the libraries it leaves alone.
 */

#include "config.h"

#include "checkpoint_tsan.h"

#include <sanitizer/tsan_interface.h>
#include <stdio.h>
#include <unistd.h>

/* The sanitizer asks the program for these two; the environment goes first. */
extern const char *
__tsan_default_options(void);
extern const char *
__tsan_default_suppressions(void);

VIR_CHECKPOINT_EXPORT const char *
__tsan_default_options(void)
{
    return
        /* Not a second more at the end: a supervisor would take a daemon that could not
         * start for one that ran for a while. */
        "atexit_sleep_ms=0:"
        /* All regular files are one thing to the sanitizer, and reading any would come
         * behind writing any other: records and logs would hide most races of ours. */
        "io_sync=0:"
        /* A test forks where threads are, and starts more: seen no further, not ended.
         */
        "die_after_fork=0:"
        /* Who took the other lock of an inversion, too. */
        "second_deadlock_stack=1:"
        /* The most: stacks of accesses that are long ago. */
        "history_size=7";
}

/*
 * All suppressions that there are.  None is of our functions, and none hides a report
 * of them: called_from_lib leaves out what a library's own calls of malloc, free,
 * memcpy and the like do, and nothing else.
 */
VIR_CHECKPOINT_EXPORT const char *
__tsan_default_suppressions(void)
{
    return
        /* Not instrumented, locks by futexes: hands memory from thread to thread. */
        "called_from_lib:libglib-2.0.so\n"
        /* Not instrumented, its objects' references are GObject's: who frees the last
         * one seems not to have waited for the others. */
        "called_from_lib:libvirt.so\n"
        /* xdr_opaque() puts padding into a static buffer that nobody reads. */
        "called_from_lib:libtirpc.so\n";
}

static void *virCheckpointTsanTag; /* names containers in reports */

/*
 * GLib before 2.76 has an allocator of its own for small things: memory goes from
 * thread to thread there, and the sanitizer takes it for the same object.  GLib reads
 * the variable before anything of ours runs, so the program has to start anew with it.
 */
__attribute__((constructor)) static void
virCheckpointTsanStart(int argc, char **argv, char **environment)
{
    char path[4096];
    ssize_t length;

    virCheckpointTsanTag = __tsan_external_register_tag("GLib container");
    if (!glib_check_version(2, 76, 0) || g_getenv("G_SLICE"))
        return;
    g_setenv("G_SLICE", "always-malloc", TRUE);
    /* By its own name: /proc/self/exe would be what ps shows. */
    length = readlink("/proc/self/exe", path, sizeof(path) - 1);
    if (length > 0) {
        path[length] = '\0';
        execv(path, argv);
    }
    perror("start anew with G_SLICE");
    _exit(EXIT_FAILURE);
}

void
virCheckpointTsanRead(gconstpointer object)
{
    __tsan_external_read((void *)object, NULL, virCheckpointTsanTag);
}

void
virCheckpointTsanWrite(gconstpointer object)
{
    __tsan_external_write((void *)object, NULL, virCheckpointTsanTag);
}

/* Mutexes and conditions.  A static one is known from its first use on. */

VIR_CHECKPOINT_WRAP(g_mutex_init);
VIR_CHECKPOINT_WRAP(g_mutex_clear);
VIR_CHECKPOINT_WRAP(g_mutex_lock);
VIR_CHECKPOINT_WRAP(g_mutex_unlock);
VIR_CHECKPOINT_WRAP(g_cond_wait);
VIR_CHECKPOINT_WRAP(g_cond_wait_until);

void
__wrap_g_mutex_init(GMutex *mutex)
{
    __real_g_mutex_init(mutex);
    __tsan_mutex_create(mutex, __tsan_mutex_not_static);
}

void
__wrap_g_mutex_clear(GMutex *mutex)
{
    __tsan_mutex_destroy(mutex, 0);
    __real_g_mutex_clear(mutex);
}

void
__wrap_g_mutex_lock(GMutex *mutex)
{
    __tsan_mutex_pre_lock(mutex, 0);
    __real_g_mutex_lock(mutex);
    __tsan_mutex_post_lock(mutex, 0, 0);
}

void
__wrap_g_mutex_unlock(GMutex *mutex)
{
    __tsan_mutex_pre_unlock(mutex, 0);
    __real_g_mutex_unlock(mutex);
    __tsan_mutex_post_unlock(mutex, 0);
}

/* A wait is an unlock and a lock; that somebody signalled orders nothing. */

void
__wrap_g_cond_wait(GCond *cond, GMutex *mutex)
{
    __tsan_mutex_pre_unlock(mutex, 0);
    __tsan_mutex_post_unlock(mutex, 0);
    __real_g_cond_wait(cond, mutex);
    __tsan_mutex_pre_lock(mutex, 0);
    __tsan_mutex_post_lock(mutex, 0, 0);
}

gboolean
__wrap_g_cond_wait_until(GCond *cond, GMutex *mutex, gint64 until)
{
    gboolean signalled;

    __tsan_mutex_pre_unlock(mutex, 0);
    __tsan_mutex_post_unlock(mutex, 0);
    signalled = __real_g_cond_wait_until(cond, mutex, until);
    __tsan_mutex_pre_lock(mutex, 0);
    __tsan_mutex_post_lock(mutex, 0, 0);
    return signalled;
}

/* Once.  The macro's own look at @location is an atomic acquire, seen as it is. */

VIR_CHECKPOINT_WRAP(g_once_init_enter);
VIR_CHECKPOINT_WRAP(g_once_init_leave);

/* In brackets: GLib has macros of these names. */
gboolean(__wrap_g_once_init_enter)(volatile void *location)
{
    gboolean first = __real_g_once_init_enter(location);

    if (!first)
        __tsan_acquire((void *)location);
    return first;
}

void(__wrap_g_once_init_leave)(volatile void *location, gsize result)
{
    __tsan_release((void *)location);
    __real_g_once_init_leave(location, result);
}

/* Threads: for their names in reports, which end at what is not instrumented. */

VIR_CHECKPOINT_WRAP(g_thread_new);
VIR_CHECKPOINT_WRAP(g_thread_try_new);

GThread *
__wrap_g_thread_new(const gchar *name, GThreadFunc func, gpointer data)
{
    return __real_g_thread_new(name, func, data);
}

GThread *
__wrap_g_thread_try_new(const gchar *name,
                        GThreadFunc func,
                        gpointer data,
                        GError **error)
{
    return __real_g_thread_try_new(name, func, data, error);
}

/* Thread pools: a push comes before its task, the tasks before the pool's end. */

typedef struct virCheckpointTsanPool virCheckpointTsanPool;
struct virCheckpointTsanPool {
    GFunc func;
    gpointer data;
};

VIR_CHECKPOINT_WRAP(g_thread_pool_new);
VIR_CHECKPOINT_WRAP(g_thread_pool_push);
VIR_CHECKPOINT_WRAP(g_thread_pool_free);

static void
virCheckpointTsanPoolRun(gpointer data, gpointer opaque)
{
    virCheckpointTsanPool *pool = opaque;
    gpointer *task = data;
    gpointer own;

    __tsan_acquire(task);
    own = *task;
    g_free(task);
    pool->func(own, pool->data);
    __tsan_release(pool);
}

GThreadPool *
__wrap_g_thread_pool_new(
    GFunc func, gpointer data, gint threads, gboolean exclusive, GError **error)
{
    virCheckpointTsanPool *pool = g_new0(virCheckpointTsanPool, 1);

    pool->func = func;
    pool->data = data;
    return __real_g_thread_pool_new(virCheckpointTsanPoolRun, pool, threads, exclusive,
                                    error);
}

gboolean
__wrap_g_thread_pool_push(GThreadPool *threads, gpointer data, GError **error)
{
    /* Each its own, so that a task is ordered behind its own push only. */
    gpointer *task = g_new(gpointer, 1);

    *task = data;
    __tsan_release(task);
    return __real_g_thread_pool_push(threads, task, error);
}

void
__wrap_g_thread_pool_free(GThreadPool *threads, gboolean immediate, gboolean wait)
{
    virCheckpointTsanPool *pool = threads->user_data;

    __real_g_thread_pool_free(threads, immediate, wait);
    /* Without a wait tasks still run, and use it. */
    if (wait) {
        __tsan_acquire(pool);
        g_free(pool);
    }
}

/* Queues between threads: a push comes before the pop of the same. */

VIR_CHECKPOINT_WRAP(g_async_queue_push);
VIR_CHECKPOINT_WRAP(g_async_queue_pop);

void
__wrap_g_async_queue_push(GAsyncQueue *queue, gpointer data)
{
    __tsan_release(data);
    __real_g_async_queue_push(queue, data);
}

gpointer
__wrap_g_async_queue_pop(GAsyncQueue *queue)
{
    gpointer data = __real_g_async_queue_pop(queue);

    __tsan_acquire(data);
    return data;
}

/* References: what each holder did comes before the last one's end. */

VIR_CHECKPOINT_WRAP(g_atomic_ref_count_dec);
VIR_CHECKPOINT_WRAP(g_atomic_rc_box_release);

gboolean(__wrap_g_atomic_ref_count_dec)(gatomicrefcount *count)
{
    gboolean last;

    __tsan_release(count);
    if ((last = (__real_g_atomic_ref_count_dec)(count)))
        __tsan_acquire(count);
    return last;
}

void
__wrap_g_atomic_rc_box_release(gpointer box)
{
    /* GLib frees it itself, with no moment between that and the look at the count. */
    static GMutex unseen;

    __real_g_mutex_lock(&unseen);
    __tsan_release(box);
    __tsan_acquire(box);
    __real_g_atomic_rc_box_release(box);
    __real_g_mutex_unlock(&unseen);
}

/*
 * Sources: what a thread did before it attached one comes before the source's callback,
 * in whatever thread the context runs.  GLib asks for the callback right before it
 * calls it: that is the moment.
 */

typedef struct virCheckpointTsanCallback virCheckpointTsanCallback;
struct virCheckpointTsanCallback {
    gint references;
    GSourceFunc func;
    gpointer data;
    GDestroyNotify notify;
};

VIR_CHECKPOINT_WRAP(g_source_set_callback);
VIR_CHECKPOINT_WRAP(g_source_attach);
VIR_CHECKPOINT_WRAP(g_timeout_add);

static void
virCheckpointTsanCallbackRef(gpointer opaque)
{
    virCheckpointTsanCallback *callback = opaque;

    g_atomic_int_inc(&callback->references);
}

static void
virCheckpointTsanCallbackUnref(gpointer opaque)
{
    virCheckpointTsanCallback *callback = opaque;

    if (!g_atomic_int_dec_and_test(&callback->references))
        return;
    if (callback->notify)
        callback->notify(callback->data);
    g_free(callback);
}

static void
virCheckpointTsanCallbackGet(gpointer opaque,
                             GSource *source,
                             GSourceFunc *func,
                             gpointer *data)
{
    virCheckpointTsanCallback *callback = opaque;

    __tsan_acquire(source);
    *func = callback->func;
    *data = callback->data;
}

void
__wrap_g_source_set_callback(GSource *source,
                             GSourceFunc func,
                             gpointer data,
                             GDestroyNotify notify)
{
    static GSourceCallbackFuncs funcs = {
        .ref = virCheckpointTsanCallbackRef,
        .unref = virCheckpointTsanCallbackUnref,
        .get = virCheckpointTsanCallbackGet,
    };
    virCheckpointTsanCallback *callback = g_new0(virCheckpointTsanCallback, 1);

    callback->func = func;
    callback->data = data;
    callback->notify = notify;
    /* GLib refers to it before it asks: what is above comes before that. */
    g_atomic_int_set(&callback->references, 1);
    __tsan_release(source);
    g_source_set_callback_indirect(source, callback, &funcs);
}

guint
__wrap_g_source_attach(GSource *source, GMainContext *context)
{
    __tsan_release(source);
    return __real_g_source_attach(source, context);
}

guint
__wrap_g_timeout_add(guint interval, GSourceFunc func, gpointer data)
{
    g_autoptr(GSource) source = g_timeout_source_new(interval);

    __wrap_g_source_set_callback(source, func, data, NULL);
    return __wrap_g_source_attach(source, NULL);
}
