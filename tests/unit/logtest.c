/*
 * logtest.c: a message is one line, and the monitor log is JSON lines
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_json.h"
#include "checkpoint_log.h"

#include <glib/gstdio.h>
#include <string.h>

static void
testLogSubprocess(void)
{
    g_setenv("VIRT_CHECKPOINT_LOG", "info", TRUE);
    virCheckpointLogInit(FALSE);
    g_log("virtcheckpoint", G_LOG_LEVEL_INFO, "made 'a\nb\x1b[1m'");
    g_log("virtcheckpoint", G_LOG_LEVEL_DEBUG, "not shown");
    g_log_set_always_fatal(G_LOG_LEVEL_ERROR);
    g_log("virtcheckpoint", G_LOG_LEVEL_WARNING, "act");
}

static void
testLogLines(void)
{
    if (g_test_subprocess()) {
        testLogSubprocess();
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr("*: info: made 'a\\nb\\x1b[1m'\n*: warning: act\n");
    g_test_trap_assert_stderr_unmatched("*not shown*");
}

static void
testLogQmp(void)
{
    g_autofree gchar *dir = g_dir_make_tmp("logtest-XXXXXX", NULL);
    g_autofree gchar *path = g_build_filename(dir, "qmp.log", NULL);
    g_autofree gchar *text = NULL;

    virCheckpointLogQmp("u", "{}", NULL);
    g_setenv("VIRT_CHECKPOINT_LOG_QMP", path, TRUE);
    virCheckpointLogQmp("u", "{\"execute\":\n \"stop\"}",
                        "{\"return\":18446744073709551615}");
    virCheckpointLogQmp("u", "{\"execute\":\"cont\"}", NULL);
    virCheckpointLogQmp("u", "not json\n", NULL);
    g_unsetenv("VIRT_CHECKPOINT_LOG_QMP");

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpstr(text, ==,
                    "{\"domain\":\"u\",\"sent\":{\"execute\":\"stop\"},"
                    "\"reply\":{\"return\":18446744073709551615}}\n"
                    "{\"domain\":\"u\",\"sent\":{\"execute\":\"cont\"}}\n"
                    "{\"domain\":\"u\",\"sent\":\"not json\\u000a\"}\n");
    g_unlink(path);
    g_rmdir(dir);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/log/one-line-a-message", testLogLines);
    g_test_add_func("/log/monitor-traffic", testLogQmp);
    return g_test_run();
}
