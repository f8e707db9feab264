/*
 * faulttest.c: points do what the environment says, at the hit it says
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_error.h"
#include "checkpoint_fault.h"

#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void
testFaultOff(void)
{
    g_autoptr(GError) error = NULL;

    g_unsetenv("VIRT_CHECKPOINT_FAULTS");
    g_assert_true(virCheckpointFaultPoint("a/b", &error));
    g_setenv("VIRT_CHECKPOINT_FAULTS", "", TRUE);
    g_assert_true(virCheckpointFaultPoint("a/b", &error));
    g_setenv("VIRT_CHECKPOINT_FAULTS", "other=fail,a/b=what,a/b", TRUE);
    g_assert_true(virCheckpointFaultPoint("a/b", &error));
    g_assert_no_error(error);
}

#ifdef VIR_CHECKPOINT_FAULTS
static void
testFaultFail(void)
{
    g_autoptr(GError) error = NULL;

    g_setenv("VIRT_CHECKPOINT_FAULTS", "x=exit,a/b=fail", TRUE);
    g_assert_false(virCheckpointFaultPoint("a/b", &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED);
    g_assert_nonnull(strstr(error->message, "a/b"));
}

static void
testFaultNth(void)
{
    g_setenv("VIRT_CHECKPOINT_FAULTS", "a@2=fail,*@4=fail", TRUE);
    g_assert_true(virCheckpointFaultPoint("a", NULL));
    g_assert_true(virCheckpointFaultPoint("b", NULL));
    g_assert_false(virCheckpointFaultPoint("a", NULL)); /* a's second */
    g_assert_false(virCheckpointFaultPoint("c", NULL)); /* anybody's fourth */
    g_assert_true(virCheckpointFaultPoint("a", NULL));

    /* Another value: counting begins anew. */
    g_setenv("VIRT_CHECKPOINT_FAULTS", "a@1=fail", TRUE);
    g_assert_false(virCheckpointFaultPoint("a", NULL));
    g_assert_true(virCheckpointFaultPoint("a", NULL));
}

static void
testFaultExit(void)
{
    pid_t pid = -1;
    int status = 0;

    g_setenv("VIRT_CHECKPOINT_FAULTS", "a=exit", TRUE);
    pid = fork();
    if (pid == 0) {
        virCheckpointFaultPoint("a", NULL);
        _exit(0);
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_true(WIFSIGNALED(status));
    g_assert_cmpint(WTERMSIG(status), ==, SIGKILL);
}

static gpointer
testFaultHeld(gpointer opaque)
{
    gint *passed = opaque;

    virCheckpointFaultPoint("a", NULL);
    g_atomic_int_set(passed, 1);
    return NULL;
}

static void
testFaultHold(void)
{
    g_autofree gchar *dir = g_dir_make_tmp("faulttest-XXXXXX", NULL);
    g_autofree gchar *go = g_build_filename(dir, "go", NULL);
    g_autofree gchar *log = g_build_filename(dir, "log", NULL);
    g_autofree gchar *spec = g_strdup_printf("a=hold:%s", go);
    g_autofree gchar *logged = NULL;
    GThread *thread = NULL;
    gint passed = 0;

    g_setenv("VIRT_CHECKPOINT_FAULTS", spec, TRUE);
    g_setenv("VIRT_CHECKPOINT_FAULTS_LOG", log, TRUE);
    thread = g_thread_new("held", testFaultHeld, &passed);
    while (!g_file_get_contents(log, &logged, NULL, NULL) || !*logged) {
        g_clear_pointer(&logged, g_free);
        g_usleep(1000);
    }
    g_clear_pointer(&logged, g_free);
    g_assert_cmpint(g_atomic_int_get(&passed), ==, 0);
    g_assert_true(virCheckpointFaultPoint("b", NULL));
    g_assert_true(g_file_set_contents(go, "", 0, NULL));
    g_thread_join(thread);
    g_assert_cmpint(g_atomic_int_get(&passed), ==, 1);

    g_assert_true(g_file_get_contents(log, &logged, NULL, NULL));
    g_assert_cmpstr(logged, ==, "a\nb\n");
    g_unsetenv("VIRT_CHECKPOINT_FAULTS");
    g_unsetenv("VIRT_CHECKPOINT_FAULTS_LOG");
    g_unlink(go);
    g_unlink(log);
    g_rmdir(dir);
}
#endif

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#ifdef VIR_CHECKPOINT_FAULTS
    g_test_add_func("/fault/fail-names-the-point", testFaultFail);
    g_test_add_func("/fault/nth-hit", testFaultNth);
    g_test_add_func("/fault/exit-is-sudden", testFaultExit);
    g_test_add_func("/fault/hold-and-log", testFaultHold);
#endif
    g_test_add_func("/fault/nothing-unless-named", testFaultOff);
    return g_test_run();
}
