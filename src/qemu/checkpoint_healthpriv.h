/*
 * checkpoint_healthpriv.h: what check, repair and heal share
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_HEALTHPRIV_H
#define VIR_CHECKPOINT_HEALTHPRIV_H

#include "checkpoint_enginepriv.h"
#include "checkpoint_health.h"
#include "checkpoint_segmentspriv.h"

/** From good to bad; the worst of its parts is the health of a whole. */
typedef enum {
    VIR_CHECKPOINT_HEALTH_HEALTHY,
    VIR_CHECKPOINT_HEALTH_UNKNOWN, /* cannot tell */
    VIR_CHECKPOINT_HEALTH_WRONG,
    VIR_CHECKPOINT_HEALTH_LAST
} virCheckpointHealth;

/** What mends something. */
typedef enum {
    VIR_CHECKPOINT_MEND_NONE, /* looking again, later */
    VIR_CHECKPOINT_MEND_REPAIR,
    VIR_CHECKPOINT_MEND_HEAL,
    VIR_CHECKPOINT_MEND_LAST
} virCheckpointMend;

/** What a bitmap in an image is to us. */
typedef enum {
    VIR_CHECKPOINT_ROLE_ACTIVE,   /* records changes */
    VIR_CHECKPOINT_ROLE_FROZEN,   /* named by a record, not parked yet */
    VIR_CHECKPOINT_ROLE_RELEASED, /* nobody needs it; goes when it can */
    VIR_CHECKPOINT_ROLE_STRAY,    /* ours by its name, and no record has it */
    VIR_CHECKPOINT_ROLE_OTHER,
    VIR_CHECKPOINT_ROLE_LAST
} virCheckpointRole;

/** A report in the making. */
typedef struct virCheckpointHealthReport {
    virCheckpointSegments *segments; /* borrowed */
    virCheckpointJson *problems;     /* owned: array */
    virCheckpointHealth health;      /* of the domain */
} virCheckpointHealthReport;

/** Notes what is wrong, or cannot be told (@health).  @disk, @checkpoint: or NULL. */
void
virCheckpointHealthProblem(virCheckpointHealthReport *report,
                           virCheckpointHealth health,
                           virCheckpointMend mend,
                           const gchar *disk,
                           const gchar *checkpoint,
                           const gchar *code,
                           const gchar *format,
                           ...) G_GNUC_PRINTF(7, 8);

/** "healthy", "unknown", "wrong". */
const gchar *
virCheckpointHealthText(virCheckpointHealth health);

/** Returns: (transfer full): the disks (gchar*) that any record covers, or that have
 * bitmaps of our prefix, sorted. */
GPtrArray *
virCheckpointHealthTargets(virCheckpointSegments *segments);

/** Returns: (transfer full): what is to be said of disk @target; its images are open
 * or @failed says why they cannot be opened. */
virCheckpointJson *
virCheckpointHealthDisk(virCheckpointHealthReport *report,
                        const gchar *target,
                        const GError *failed);

virCheckpointRole
virCheckpointHealthRole(virCheckpointSegments *segments, const gchar *bitmap);

/**
 * virCheckpointHealthGap:
 * A record whose parent is no record, though others could be: one between them is gone.
 * @previous: (out) (nullable): the one that the gap follows
 *
 * Returns: the record behind the gap, or NULL if there is none.
 */
virCheckpointRecord *
virCheckpointHealthGap(virCheckpointSegments *segments, virCheckpointRecord **previous);

/** Files of the folder (gchar*) that no record names: sidecars, temporary ones. */
GPtrArray *
virCheckpointHealthOrphans(virCheckpointEngine *engine,
                           virCheckpointSegments *segments);

/** The report of the domain behind @segments. */
virCheckpointJson *
virCheckpointHealthLook(virCheckpointEngine *engine, virCheckpointSegments *segments);

#endif
