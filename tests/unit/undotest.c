/*
 * undotest.c: the ledger runs backwards, once, unless dismissed
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_undo.h"

static GString *testTrace;

static void
testNote(gpointer data)
{
    g_string_append(testTrace, data);
}

static void
testFreed(gpointer data)
{
    g_string_append_printf(testTrace, "(%s)", (gchar *)data);
}

static void
testUndoBackwards(void)
{
    g_autoptr(GString) trace = g_string_new(NULL);
    g_autoptr(virCheckpointUndo) undo = virCheckpointUndoNew();

    testTrace = trace;
    virCheckpointUndoPush(undo, testNote, (gpointer) "a", NULL);
    virCheckpointUndoPush(undo, testNote, (gpointer) "b", testFreed);
    virCheckpointUndoPush(undo, testNote, (gpointer) "c", NULL);
    g_clear_pointer(&undo, virCheckpointUndoFree);
    g_assert_cmpstr(trace->str, ==, "cb(b)a");
}

static void
testUndoDismissed(void)
{
    g_autoptr(GString) trace = g_string_new(NULL);
    g_autoptr(virCheckpointUndo) undo = virCheckpointUndoNew();

    testTrace = trace;
    virCheckpointUndoPush(undo, testNote, (gpointer) "a", testFreed);
    virCheckpointUndoDismiss(undo);
    g_assert_cmpstr(trace->str, ==, "(a)");
    virCheckpointUndoPush(undo, testNote, (gpointer) "b", NULL);
    g_clear_pointer(&undo, virCheckpointUndoFree);
    g_assert_cmpstr(trace->str, ==, "(a)b");
    virCheckpointUndoFree(NULL);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/undo/runs-backwards", testUndoBackwards);
    g_test_add_func("/undo/dismissed-entries-are-only-freed", testUndoDismissed);
    return g_test_run();
}
