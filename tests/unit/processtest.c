/*
 * processtest.c: helpers run without a shell and say why they failed
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_error.h"
#include "checkpoint_process.h"

#include <string.h>

static void
testProcessOutput(void)
{
    const gchar *const argv[] = {"sh", "-c",  "echo \"$LC_ALL $1\"; cat",
                                 "x",  "a b", NULL};
    g_autoptr(GError) error = NULL;
    g_autofree gchar *output = NULL;

    g_assert_true(virCheckpointProcessRun(argv, &output, &error));
    g_assert_no_error(error);
    g_assert_cmpstr(output, ==, "C.UTF-8 a b\n");
}

static void
testProcessFailure(void)
{
    const gchar *const argv[] = {
        "sh", "-c", "echo unused; echo 'no space' >&2; echo left >&2; exit 3", NULL};
    g_autoptr(GError) error = NULL;
    g_autofree gchar *output = NULL;

    g_assert_false(virCheckpointProcessRun(argv, &output, &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED);
    g_assert_nonnull(strstr(error->message, "run 'sh': "));
    g_assert_nonnull(strstr(error->message, "no space left"));
    g_assert_null(output);
}

static void
testProcessMissing(void)
{
    const gchar *const argv[] = {"virtcheckpoint-no-such-program", NULL};
    g_autoptr(GError) error = NULL;

    g_assert_false(virCheckpointProcessRun(argv, NULL, &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED);
    g_assert_nonnull(strstr(error->message, "virtcheckpoint-no-such-program"));
}

static void
testProcessLongStderr(void)
{
    const gchar *const argv[] = {"sh", "-c",
                                 "yes 'very long' | head -c 1000000 >&2; exit 1", NULL};
    g_autoptr(GError) error = NULL;

    g_assert_false(virCheckpointProcessRun(argv, NULL, &error));
    g_assert_cmpuint(strlen(error->message), <, 1200);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/process/output-and-arguments", testProcessOutput);
    g_test_add_func("/process/failure-quotes-stderr", testProcessFailure);
    g_test_add_func("/process/missing-program", testProcessMissing);
    g_test_add_func("/process/long-stderr-is-cut", testProcessLongStderr);
    return g_test_run();
}
