/*
 * checkpoint_health.h: what the store, QEMU and the images have of checkpoints
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_HEALTH_H
#define VIR_CHECKPOINT_HEALTH_H

#include "checkpoint_engine.h"
#include "checkpoint_json.h"

/**
 * virCheckpointEngineCheck:
 * Returns: (transfer full): the report on a domain (docs/internals/health.md has its
 * members).  Takes the domain's slot, settles and changes nothing.
 */
virCheckpointJson *
virCheckpointEngineCheck(virCheckpointEngine *engine,
                         const gchar *uuid,
                         GError **error);

/**
 * virCheckpointEngineRepair:
 * Does what needs no decision: settles, gives bits of stray bitmaps to what records,
 * removes those and files that nobody names, closes gaps that lost records left.
 *
 * Returns: (transfer full): the report afterwards, with member "repaired", an array of
 * sentences.
 */
virCheckpointJson *
virCheckpointEngineRepair(virCheckpointEngine *engine,
                          const gchar *uuid,
                          GError **error);

#endif
