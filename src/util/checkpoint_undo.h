/*
 * checkpoint_undo.h: a ledger of what to take back
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_UNDO_H
#define VIR_CHECKPOINT_UNDO_H

#include <glib.h>

typedef struct virCheckpointUndo virCheckpointUndo;
typedef void (*virCheckpointUndoFunc)(gpointer data);

virCheckpointUndo *
virCheckpointUndoNew(void);
/** Registers @func(@data) to run, last first, when the ledger is freed. @free (or NULL)
 * frees @data in either case. */
void
virCheckpointUndoPush(virCheckpointUndo *undo,
                      virCheckpointUndoFunc func,
                      gpointer data,
                      GDestroyNotify free);
/** Everything went well: forget all entries. */
void
virCheckpointUndoDismiss(virCheckpointUndo *undo);
/** Runs what was not dismissed, newest first, and frees. */
void
virCheckpointUndoFree(virCheckpointUndo *undo);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointUndo, virCheckpointUndoFree)

#endif
