/*
 * checkpoint_refusal.h: clients that cannot be connected to the backend
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_REFUSAL_H
#define VIR_CHECKPOINT_REFUSAL_H

#include "checkpoint_frame.h"

/**
 * virCheckpointRefuse:
 * @fd: the client's socket, taken over
 * @code: a virErrorNumber; @message: the whole text
 *
 * Answers the client's first call with the error, so that its user reads what libvirt's
 * client library would have said about the backend's socket, and closes.  Thread: main.
 */
void
virCheckpointRefuse(int fd, gint code, const gchar *message);

#endif
