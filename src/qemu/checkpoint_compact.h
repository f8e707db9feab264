/*
 * checkpoint_compact.h: many sidecars of a segment into one
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_COMPACT_H
#define VIR_CHECKPOINT_COMPACT_H

#include "checkpoint_engine.h"
#include "checkpoint_store.h"

/**
 * virCheckpointCompactDomain:
 * Merges, for each segment with more than one sidecar, these into one new file, through
 * a storage daemon; the guest is not involved.  The caller holds the slot.  A failure
 * leaves everything as it was.
 */
gboolean
virCheckpointCompactDomain(virCheckpointStoreDomain *store, GError **error);

/** The same in the background; failures are logged only.  Thread: any. */
void
virCheckpointCompactLater(virCheckpointEngine *engine, const gchar *uuid);

#endif
