/*
 * checkpoint_healpriv.h: one heal, between its beginning and its end
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_HEALPRIV_H
#define VIR_CHECKPOINT_HEALPRIV_H

#include "checkpoint_enginepriv.h"
#include "checkpoint_heal.h"
#include "checkpoint_heal_storage.h"

typedef enum {
    VIR_CHECKPOINT_HEAL_RUNNING,
    VIR_CHECKPOINT_HEAL_COMPLETED,
    VIR_CHECKPOINT_HEAL_FAILED,
    VIR_CHECKPOINT_HEAL_CANCELLED,
    VIR_CHECKPOINT_HEAL_LAST
} virCheckpointHealState;

typedef struct virCheckpointHeal {
    gint refs;      /* atomic */
    gint state;     /* atomic: virCheckpointHealState */
    gint cancelled; /* atomic */
    gint spoiled;   /* atomic: changes were lost since it began */
    gint doneMib;   /* atomic */

    /* Set before others can see it. */
    gchar *uuid;
    gchar *target;

    /* Belong to whoever works on it. */
    gchar *baseId;      /* record of the replica's checkpoint */
    GPtrArray *lostIds; /* gchar*: records whose segments are lost */
    gchar *newestId;    /* the record that owned the active bitmap at the beginning */
    gchar *replica;     /* its path, or NULL */
    gchar *stamp;       /* what it looked like */
    guint64 sizeBytes;
    guint64 differing;
    virCheckpointHealStorage *storage;

    gchar *error; /* under the lock of all heals */
} virCheckpointHeal;

void
virCheckpointHealUnref(virCheckpointHeal *heal);

typedef gboolean (*virCheckpointHealRegisterFunc)(virCheckpointHeal *heal,
                                                  GError **error);

/** Judges the request, flushes the disk and opens both sides.  Takes the slot for that;
 * calls @register_ in it. */
gboolean
virCheckpointHealBegin(virCheckpointEngine *engine,
                       virCheckpointHeal *heal,
                       const virCheckpointHealRequest *request,
                       virCheckpointHealRegisterFunc register_,
                       GError **error);

/** The bits of what differs are there: they become the lost segments.  Takes the slot.
 */
gboolean
virCheckpointHealFinish(virCheckpointEngine *engine,
                        virCheckpointHeal *heal,
                        GError **error);

#endif
