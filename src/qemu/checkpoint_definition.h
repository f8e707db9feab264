/*
 * checkpoint_definition.h: libvirt's definitions on the disk
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_DEFINITION_H
#define VIR_CHECKPOINT_DEFINITION_H

#include <glib.h>

/**
 * virCheckpointDefinitionSync:
 * What libvirt answered about definitions of domains outlives a power cut from now on.
 */
gboolean
virCheckpointDefinitionSync(GError **error);

/**
 * virCheckpointDefinitionForget:
 * A power cut brings back nothing of libvirt's checkpoint @name of @domain, of which
 * libvirt knows nothing any more.
 */
gboolean
virCheckpointDefinitionForget(const gchar *domain, const gchar *name, GError **error);

#endif
