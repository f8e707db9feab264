/*
 * checkpoint_storage_argvpriv.h: inside the storage daemon's arguments
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_STORAGE_ARGVPRIV_H
#define VIR_CHECKPOINT_STORAGE_ARGVPRIV_H

#include "checkpoint_storage_argv.h"
#include "checkpoint_xml.h"

virCheckpointStorageLayer *
virCheckpointStorageLayerNew(virCheckpointStorageType type);

/** VIR_ERR_CONFIG_UNSUPPORTED "... cannot be opened without its guest";
 * always FALSE. */
gboolean
virCheckpointStorageUnsupported(GError **error, const gchar *format, ...)
    G_GNUC_PRINTF(2, 3);

/**
 * virCheckpointStorageParseSource: the source of @node, a <disk> or <backingStore>
 * @top: the guest writes to it
 *
 * Fills @layer in, all but format and encryption.  Pure.
 */
gboolean
virCheckpointStorageParseSource(virCheckpointStorageLayer *layer,
                                xmlNode *node,
                                gboolean top,
                                GError **error);

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
