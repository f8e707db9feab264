/*
 * recoverytest.c: the tables of recovery that people read are those of the code
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include <string.h>

#include "checkpoint_recoverytable.h"

static gchar *
testDocument(const gchar *name)
{
    g_autofree gchar *path = g_build_filename(g_getenv("TEST_DATA"), "..", "..", "docs",
                                              "internals", name, NULL);
    g_autoptr(GError) error = NULL;
    gchar *text = NULL;

    g_file_get_contents(path, &text, NULL, &error);
    g_assert_no_error(error);
    return text;
}

static void
testStates(void)
{
    g_autofree gchar *document = testDocument("recovery.md");
    g_autofree gchar *table = virCheckpointRecoveryTable();
    g_auto(GStrv) lines = g_strsplit(document, "\n", -1);
    g_autoptr(GString) found = g_string_new(NULL);
    guint i;

    for (i = 0; lines[i]; i++) {
        if (g_str_has_prefix(lines[i], "| checkpoint | ") ||
            g_str_has_prefix(lines[i], "| copy | ") ||
            g_str_has_prefix(lines[i], "| backup | "))
            g_string_append_printf(found, "%s\n", lines[i]);
    }
    g_assert_cmpstr(found->str, ==, table);
}

/* "`a` -> `b`, `c`; ..." of the moves that are allowed, in the order of the states. */
static gchar *
testMoves(void)
{
    GString *moves = g_string_new(NULL);
    guint from;
    guint to;

    for (from = 0; from < VIR_CHECKPOINT_JOB_LAST; from++) {
        const gchar *before = " -> ";

        for (to = 0; to < VIR_CHECKPOINT_JOB_LAST; to++) {
            if (!virCheckpointJobStateMayMove(from, to))
                continue;
            if (strcmp(before, ", ") != 0)
                g_string_append_printf(moves, "%s`%s`", moves->len ? "; " : "",
                                       virCheckpointJobStateToString(from));
            g_string_append_printf(moves, "%s`%s`", before,
                                   virCheckpointJobStateToString(to));
            before = ", ";
        }
    }
    return g_string_free(moves, FALSE);
}

static void
testMovesOfCopies(void)
{
    g_autofree gchar *document = testDocument("mirror.md");
    g_autofree gchar *moves = testMoves();
    gchar *p;

    for (p = document; *p; p++)
        *p = *p == '\n' ? ' ' : *p;
    g_assert_nonnull(strstr(document, moves));
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/recovery/states-are-documented", testStates);
    g_test_add_func("/recovery/moves-of-copies-are-documented", testMovesOfCopies);
    return g_test_run();
}
