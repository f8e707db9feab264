/*
 * checkpoint_heal.h: lost changes, found again by comparing with a replica
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_HEAL_H
#define VIR_CHECKPOINT_HEAL_H

#include "checkpoint_engine.h"
#include "checkpoint_json.h"

typedef struct virCheckpointHealRequest {
    const gchar *disk;       /* target or source path */
    const gchar *against;    /* the replica: a <disk>, as blockcopy's --xml */
    const gchar *checkpoint; /* that the replica holds; NULL: as we made it */
} virCheckpointHealRequest;

/**
 * virCheckpointEngineHeal:
 * Begins to compare; it goes on in the background, in nobody's way.  Returns when
 * nothing can be refused any more: VIR_ERR_INVALID_ARG (disk, replica or checkpoint
 * will not do), VIR_ERR_OPERATION_INVALID (nothing is lost; something else runs).
 */
gboolean
virCheckpointEngineHeal(virCheckpointEngine *engine,
                        const gchar *uuid,
                        const virCheckpointHealRequest *request,
                        GError **error);

/**
 * virCheckpointEngineHealQuery:
 * Returns: (transfer full): how the last heal of @disk fares: "state" (running,
 * completed, failed, cancelled), "done", "total", "differing" in bytes, "error".
 * VIR_ERR_OPERATION_INVALID: there was none since the daemon started.
 */
virCheckpointJson *
virCheckpointEngineHealQuery(virCheckpointEngine *engine,
                             const gchar *uuid,
                             const gchar *disk,
                             GError **error);

/** Ends it; what it found so far is dropped.  Does not wait. */
gboolean
virCheckpointEngineHealCancel(virCheckpointEngine *engine,
                              const gchar *uuid,
                              const gchar *disk,
                              GError **error);

/* For the engine's own modules. */

/** Changes of disk @target were lost just now: what a heal reads meanwhile would not be
 * enough. */
void
virCheckpointHealSpoil(const gchar *uuid, const gchar *target);

/** All heals end soon. */
void
virCheckpointHealInterrupt(void);

#endif
