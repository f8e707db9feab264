/*
 * checkpoint_elsewhere.h: a client defines a checkpoint that another store has
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_ELSEWHERE_H
#define VIR_CHECKPOINT_ELSEWHERE_H

#include "checkpoint_enginepriv.h"

/**
 * virCheckpointElsewhereTake:
 * @def: a redefinition whose name is not ours, aligned (checkpoint_def.h); @validate:
 *   its bits must be here
 * @taken: (out): FALSE: nothing tells that another store has it, or libvirt has it
 * It becomes one of ours that is inconsistent on each of its disks.
 * Errors: CHECKPOINT_INCONSISTENT with @validate, naming domain, disk, checkpoint and
 * remedy; whatever keeps from recording it.
 */
gboolean
virCheckpointElsewhereTake(virCheckpointOperation *operation,
                           const virCheckpointDef *def,
                           gboolean validate,
                           gboolean *taken,
                           GError **error);

#endif
