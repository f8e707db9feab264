/*
 * checkpoint_undo.c: a ledger of what to take back
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A function with several side effects pushes the undo of each one right after it was
 * taken.  Leaving early frees the ledger and so runs the undos, newest first; the last
 * line of the good path dismisses it.  Undo functions cannot fail upwards: they log,
 * and the caller's first error is kept.
 *
 * The ledger lives in memory only.  What must be taken back after a crash is the
 * business of the records in the store.
 */

#include "config.h"

#include "checkpoint_undo.h"

typedef struct virCheckpointUndoEntry {
    virCheckpointUndoFunc func;
    gpointer data;
    GDestroyNotify free;
} virCheckpointUndoEntry;

struct virCheckpointUndo {
    GPtrArray *entries; /* virCheckpointUndoEntry*, oldest first */
};

static void
virCheckpointUndoEntryFree(gpointer opaque)
{
    virCheckpointUndoEntry *entry = opaque;

    if (entry->free)
        entry->free(entry->data);
    g_free(entry);
}

virCheckpointUndo *
virCheckpointUndoNew(void)
{
    virCheckpointUndo *undo = g_new0(virCheckpointUndo, 1);

    undo->entries = g_ptr_array_new_with_free_func(virCheckpointUndoEntryFree);
    return undo;
}

void
virCheckpointUndoPush(virCheckpointUndo *undo,
                      virCheckpointUndoFunc func,
                      gpointer data,
                      GDestroyNotify free)
{
    virCheckpointUndoEntry *entry = g_new0(virCheckpointUndoEntry, 1);

    g_assert(func);
    entry->func = func;
    entry->data = data;
    entry->free = free;
    g_ptr_array_add(undo->entries, entry);
}

void
virCheckpointUndoDismiss(virCheckpointUndo *undo)
{
    g_ptr_array_set_size(undo->entries, 0);
}

void
virCheckpointUndoFree(virCheckpointUndo *undo)
{
    if (!undo)
        return;

    while (undo->entries->len > 0) {
        guint last = undo->entries->len - 1;
        virCheckpointUndoEntry *entry = g_ptr_array_index(undo->entries, last);

        entry->func(entry->data);
        g_ptr_array_set_size(undo->entries, (gint)last);
    }
    g_ptr_array_unref(undo->entries);
    g_free(undo);
}
