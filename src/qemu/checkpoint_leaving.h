/*
 * checkpoint_leaving.h: domains that go, and whose they are
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_LEAVING_H
#define VIR_CHECKPOINT_LEAVING_H

#include "checkpoint_enginepriv.h"

/** The domain runs here: writes down that this host is the one.  @view: looked at just
 * now; also drops or renews the mark of a domain that was to go. */
void
virCheckpointLeavingSettle(virCheckpointEngine *engine,
                           virCheckpointStoreDomain *store,
                           virCheckpointDomainView *view);

/** Libvirt does not know the domain: if a client asked for that, with its checkpoints,
 * their bits go into the images and the folder goes. */
gboolean
virCheckpointLeavingVanished(virCheckpointEngine *engine,
                             const gchar *uuid,
                             GError **error);

/** TRUE if the domain was asked to go.  Thread: any; does not block. */
gboolean
virCheckpointLeavingIsMarked(virCheckpointEngine *engine, const gchar *uuid);

#endif
