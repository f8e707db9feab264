/*
 * checkpoint_redefine.h: a client defines a checkpoint that exists
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_REDEFINE_H
#define VIR_CHECKPOINT_REDEFINE_H

#include "checkpoint_enginepriv.h"

/**
 * virCheckpointRedefineNew:
 * @def: a redefinition whose name is not ours, not aligned; @validate: its bits must be
 *   there; @records: ours
 * @taken: (out): it is ours from now on (checkpoint_elsewhere.h); else it is libvirt's
 *
 * If one of libvirt's is to be the child of one of ours its bits must be in the images:
 * libvirt, which does not know that parent, is not told of it and would take it without
 * them.
 * Returns: TRUE, or FALSE and VIR_ERR_CHECKPOINT_INCONSISTENT, or why the images cannot
 * be looked at.
 */
gboolean
virCheckpointRedefineNew(virCheckpointEngine *engine,
                         const gchar *uuid,
                         const virCheckpointDef *def,
                         gboolean validate,
                         GPtrArray *records,
                         gboolean *taken,
                         GError **error);

/**
 * virCheckpointRedefine:
 * @def: parsed for a redefinition, not aligned; @validate: look whether all bits are
 *   there (the domain must run)
 *
 * Takes description and time over; the rest stays as it is recorded.  Errors, with
 * libvirt's codes and texts: NO_DOMAIN_CHECKPOINT (not ours), INVALID_ARG (parent,
 * uuid), CONFIG_UNSUPPORTED (disks), OPERATION_INVALID (not running),
 * CHECKPOINT_INCONSISTENT.
 */
gboolean
virCheckpointRedefine(virCheckpointOperation *operation,
                      virCheckpointDef *def,
                      gboolean validate,
                      GError **error);

#endif
