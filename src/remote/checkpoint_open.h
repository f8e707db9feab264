/*
 * checkpoint_open.h: what the gateway reads in packets around CONNECT_OPEN
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_OPEN_H
#define VIR_CHECKPOINT_OPEN_H

#include "checkpoint_frame.h"

#define VIR_CHECKPOINT_PROC_CONNECT_OPEN 1
#define VIR_CHECKPOINT_PROC_CONNECT_GET_TYPE 3
#define VIR_CHECKPOINT_OPEN_READ_ONLY 1U

/** TRUE for a call of CONNECT_OPEN, whether it is said to carry descriptors or not. */
gboolean
virCheckpointOpenIsCall(const virCheckpointFrame *frame);

/** Returns: TRUE and sets @flags, or FALSE for arguments that do not decode. */
gboolean
virCheckpointOpenGetFlags(const virCheckpointFrame *frame, guint32 *flags);

/** Adds @flags to those of the call; FALSE for arguments that do not decode. */
gboolean
virCheckpointOpenAddFlags(virCheckpointFrame *frame, guint32 flags);

/** TRUE if the good reply to CONNECT_GET_TYPE says @type. */
gboolean
virCheckpointOpenTypeIs(const virCheckpointFrame *reply, const gchar *type);

#endif
