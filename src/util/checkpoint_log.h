/*
 * checkpoint_log.h: what an admin reads
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_LOG_H
#define VIR_CHECKPOINT_LOG_H

#include <glib.h>

/**
 * virCheckpointLogInit:
 * @verbose: info and debug messages, too; else warnings and errors only
 *
 * Messages go to stderr, one line each: "TIME: LEVEL: text", control characters
 * escaped.  VIRT_CHECKPOINT_LOG=debug|info|warning in the environment overrides
 * @verbose. VIRT_CHECKPOINT_LOG_QMP=FILE appends every monitor command and reply, one
 * JSON object a line: {"domain":UUID,"sent":{...},"reply":{...}} (virCheckpointLogQmp).
 */
void
virCheckpointLogInit(gboolean verbose);

/* g_debug: state moves (domain= checkpoint= job= state=A->B); g_info: what an admin
 * did; g_warning: what an admin should act on.  Use GLib's macros with G_LOG_DOMAIN
 * "virtcheckpoint"; never g_error. */

/** @peer: the domain's UUID or a helper's name; @reply may be NULL when none came. */
void
virCheckpointLogQmp(const gchar *peer, const gchar *sent, const gchar *reply);

#endif
