/*
 * checkpoint_orphan.h: helpers that outlived the daemon that started them
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_ORPHAN_H
#define VIR_CHECKPOINT_ORPHAN_H

#include <glib.h>

/**
 * virCheckpointOrphansEnd:
 * @program: what it is called, a name without a folder
 * @locks: gchar*: files; who has one of them open was started for it
 * @timeoutMs: how long each may take to end in order
 *
 * Tells every process called @program that has one of @locks open, and no parent of our
 * name any more, to end in order, and kills what has not ended after that time.  Ends
 * soon if there is none.
 * Thread: any; blocks until all of them are gone.
 *
 * Returns: how many were killed.
 */
guint
virCheckpointOrphansEnd(const gchar *program, GPtrArray *locks, guint timeoutMs);

#endif
