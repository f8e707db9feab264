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

/** The same before a record is made that may be the first: a crash right after it
 * leaves no doubt whose the domain is.  Without a record it goes with the folder. */
void
virCheckpointLeavingFirst(virCheckpointEngine *engine,
                          virCheckpointStoreDomain *store,
                          const virCheckpointDomainView *view);

/** The same at an operation's end, if nothing says it yet: the first record may be
 * younger than the domain's settling. */
void
virCheckpointLeavingRanHere(virCheckpointEngine *engine,
                            virCheckpointStoreDomain *store,
                            const virCheckpointDomainView *view);

/** TRUE if the domain, which is off, went to another host: what it left behind here are
 * images and a definition of yesterday. */
gboolean
virCheckpointLeavingIsAway(virCheckpointEngine *engine,
                           const virCheckpointDomainView *view);

/** Libvirt does not know the domain: if a client asked for that, with its checkpoints,
 * their bits go into the images and the folder goes. */
gboolean
virCheckpointLeavingVanished(virCheckpointEngine *engine,
                             const gchar *uuid,
                             GError **error);

/** The domain went to another host.  Where its disks were copied the images that it
 * left here are nobody's, and would not be taken back with bitmaps of ours in them. */
void
virCheckpointLeavingMigrated(virCheckpointEngine *engine, const gchar *uuid);

/** TRUE if the domain was asked to go.  Thread: any; does not block. */
gboolean
virCheckpointLeavingIsMarked(virCheckpointEngine *engine, const gchar *uuid);

#endif
