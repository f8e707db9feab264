/*
 * checkpoint_error.h: one error domain whose codes are libvirt's
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_ERROR_H
#define VIR_CHECKPOINT_ERROR_H

#include <glib.h>
#include <libvirt/virterror.h>

/**
 * VIR_CHECKPOINT_ERROR:
 * Errors of our own.  The code is a virErrorNumber; the message is the detail only,
 * without libvirt's sentence for the code ("invalid argument: ") in front and
 * without a full stop.  virCheckpointErrorMessage() puts the sentence there.
 */
#define VIR_CHECKPOINT_ERROR (virCheckpointErrorQuark())

/**
 * VIR_CHECKPOINT_LIBVIRT_ERROR:
 * Errors that libvirt reported to us.  The code is a virErrorNumber; the message is
 * libvirt's own, complete.
 */
#define VIR_CHECKPOINT_LIBVIRT_ERROR (virCheckpointLibvirtErrorQuark())

GQuark
virCheckpointErrorQuark(void);
GQuark
virCheckpointLibvirtErrorQuark(void);

/**
 * virCheckpointErrorCode:
 * @error: any GError, borrowed
 *
 * Returns: the virErrorNumber a client gets for @error; VIR_ERR_OPERATION_FAILED for
 * errors of other domains (GIO, GLib); VIR_ERR_INTERNAL_ERROR for code 0.  Never 0: the
 * client library replaces an error with code 0 by one without our message.
 */
gint
virCheckpointErrorCode(const GError *error);

/**
 * virCheckpointErrorMessage:
 * @error: any GError, borrowed
 *
 * Returns: (transfer full): the sentence a client gets: libvirt's text for the code,
 * a colon and the detail; for VIR_CHECKPOINT_LIBVIRT_ERROR the message as it is.
 * Cut to 4096 bytes at a UTF-8 boundary: longer ones can make the reply unencodable.
 */
gchar *
virCheckpointErrorMessage(const GError *error);

#endif
