/*
 * checkpoint_storage_argvpriv.h: inside the storage daemon's arguments
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_STORAGE_ARGVPRIV_H
#define VIR_CHECKPOINT_STORAGE_ARGVPRIV_H

#include "checkpoint_storage_argv.h"

virCheckpointStorageLayer *
virCheckpointStorageLayerNew(virCheckpointStorageType type);

/** VIR_ERR_CONFIG_UNSUPPORTED "... cannot be opened without its guest";
 * always FALSE. */
gboolean
virCheckpointStorageUnsupported(GError **error, const gchar *format, ...)
    G_GNUC_PRINTF(2, 3);

/**
 * virCheckpointStorageParseBacking:
 * @above: the layer in whose header @backing stands
 *
 * A path (relative: to @above's), a nbd: address, or json:.  Pure.
 */
virCheckpointStorageLayer *
virCheckpointStorageParseBacking(const virCheckpointStorageLayer *above,
                                 const gchar *backing,
                                 GError **error);

#endif
