/*
 * orphantest.c: helpers whose daemon died are ended, and nobody else
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_file.h"
#include "checkpoint_orphan.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Longer than what the kernel keeps of a name. */
#define PROGRAM "virtcheckpoint-orphan-test"
/** Enough for a busy machine to end one that obeys. */
#define PATIENT_MS 20000
#define SHORT_MS 300

/* What a helper is like. */
typedef enum {
    TEST_STUBBORN = 1 << 0, /* does not end when it is told to */
    TEST_OTHER = 1 << 1,    /* has another name */
    TEST_APART = 1 << 2,    /* has no lock open */
    TEST_CHILD = 1 << 3,    /* whoever started it lives */
} testKind;

typedef struct {
    gchar *folder;
    gchar *lock;
    pid_t parent; /* of a TEST_CHILD */
} testFixture;

static void
testSetup(testFixture *f, gconstpointer data)
{
    f->folder = g_dir_make_tmp("orphantest-XXXXXX", NULL);
    f->lock = g_build_filename(f->folder, "lock", NULL);
    g_assert_true(g_file_set_contents(f->lock, "", 0, NULL));
}

static void
testTeardown(testFixture *f, gconstpointer data)
{
    g_assert_cmpint(unlink(f->lock), ==, 0);
    g_assert_cmpint(rmdir(f->folder), ==, 0);
    g_free(f->lock);
    g_free(f->folder);
}

/* In the helper: async-signal-safe calls only. */
static void
testHelp(const testFixture *f, testKind kind, int told)
{
    pid_t self = getpid();

    if (kind & TEST_STUBBORN)
        signal(SIGTERM, SIG_IGN);
    if (!(kind & TEST_OTHER))
        prctl(PR_SET_NAME, PROGRAM, 0, 0, 0);
    if (!(kind & TEST_APART) && open(f->lock, O_RDWR) < 0)
        _exit(1);
    if (write(told, &self, sizeof(self)) != sizeof(self))
        _exit(1);
    alarm(60);
    for (;;)
        pause();
}

/* Starts a helper by a process that ends, or lives until testEnd(). */
static pid_t
testStart(testFixture *f, testKind kind)
{
    int told[2];
    pid_t pid = 0;

    g_assert_cmpint(pipe(told), ==, 0);
    f->parent = fork();
    if (f->parent == 0) {
        if (fork() == 0)
            testHelp(f, kind, told[1]);
        if (kind & TEST_CHILD)
            pause();
        _exit(0);
    }
    g_assert_cmpint(read(told[0], &pid, sizeof(pid)), ==, sizeof(pid));
    close(told[0]);
    close(told[1]);
    if (!(kind & TEST_CHILD))
        g_assert_cmpint(waitpid(f->parent, NULL, 0), ==, f->parent);
    return pid;
}

static gboolean
testLives(pid_t pid)
{
    g_autofree gchar *path = g_strdup_printf("/proc/%d/stat", (int)pid);
    g_autofree gchar *text = NULL;

    /* Whoever reaps it may take a moment. */
    return g_file_get_contents(path, &text, NULL, NULL) && !strstr(text, ") Z ");
}

/* Whom it concerns, and the number of those that had to be killed. */
static void
testOne(testFixture *f, testKind kind, gboolean ends, guint killed)
{
    g_autoptr(GPtrArray) locks = g_ptr_array_new();
    pid_t pid = testStart(f, kind);

    g_ptr_array_add(locks, f->lock);
    if (ends)
        g_test_expect_message("virtcheckpoint", G_LOG_LEVEL_INFO, "*outlived*");
    if (killed > 0)
        g_test_expect_message("virtcheckpoint", G_LOG_LEVEL_WARNING, "*is killed*");
    g_assert_cmpuint(virCheckpointOrphansEnd(
                         PROGRAM, locks, ends && killed == 0 ? PATIENT_MS : SHORT_MS),
                     ==, killed);
    g_test_assert_expected_messages();
    g_assert_cmpint(testLives(pid), ==, !ends);
    if (!ends)
        g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
    if (kind & TEST_CHILD) {
        g_assert_cmpint(kill(f->parent, SIGKILL), ==, 0);
        g_assert_cmpint(waitpid(f->parent, NULL, 0), ==, f->parent);
    }
}

static void
testOrphanObeys(testFixture *f, gconstpointer data)
{
    testOne(f, 0, TRUE, 0);
}

static void
testOrphanHangs(testFixture *f, gconstpointer data)
{
    testOne(f, TEST_STUBBORN, TRUE, 1);
}

static void
testOrphanOthers(testFixture *f, gconstpointer data)
{
    testOne(f, TEST_OTHER, FALSE, 0);
    testOne(f, TEST_APART, FALSE, 0);
    testOne(f, TEST_CHILD, FALSE, 0);
}

#define TEST(path, func)                                                               \
    g_test_add(path, testFixture, NULL, testSetup, func, testTeardown)

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    TEST("/orphan/ends-in-order", testOrphanObeys);
    TEST("/orphan/is-killed-after-its-time", testOrphanHangs);
    TEST("/orphan/others-are-left-alone", testOrphanOthers);
    return g_test_run();
}
