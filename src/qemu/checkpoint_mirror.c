/*
 * checkpoint_mirror.c: incremental mirrors
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_error.h"
#include "checkpoint_mirror.h"

gboolean
virCheckpointMirrorInit(virCheckpointEngine *engine, GError **error)
{
    return TRUE;
}

void
virCheckpointMirrorStop(virCheckpointEngine *engine)
{
}

void
virCheckpointMirrorFini(virCheckpointEngine *engine)
{
}

gboolean
virCheckpointMirrorRecover(virCheckpointEngine *engine,
                           virCheckpointStoreDomain *store,
                           virCheckpointDomainView *view,
                           const virCheckpointJobRecord *job,
                           GError **error)
{
    return TRUE;
}

void
virCheckpointMirrorDomainEvent(virCheckpointEngine *engine,
                               const gchar *uuid,
                               gint event,
                               gint detail)
{
}

void
virCheckpointMirrorBlockJobEvent(virCheckpointEngine *engine,
                                 const gchar *uuid,
                                 const gchar *disk,
                                 gint type,
                                 gint status)
{
}

gboolean
virCheckpointEngineMirrorStart(virCheckpointEngine *engine,
                               const gchar *uuid,
                               const virCheckpointMirrorRequest *request,
                               GError **error)
{
    g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_UNSUPPORTED,
                        "this build has no incremental mirror");
    return FALSE;
}

virCheckpointMirrorAnswer
virCheckpointEngineMirrorInfo(virCheckpointEngine *engine,
                              const gchar *uuid,
                              const gchar *disk,
                              virDomainBlockJobInfo *info,
                              GError **error)
{
    return VIR_CHECKPOINT_MIRROR_NONE;
}

virCheckpointMirrorAnswer
virCheckpointEngineMirrorAbort(virCheckpointEngine *engine,
                               const gchar *uuid,
                               const gchar *disk,
                               guint flags,
                               GError **error)
{
    return VIR_CHECKPOINT_MIRROR_NONE;
}

virCheckpointMirrorAnswer
virCheckpointEngineMirrorSetSpeed(virCheckpointEngine *engine,
                                  const gchar *uuid,
                                  const gchar *disk,
                                  guint64 bandwidthBytes,
                                  GError **error)
{
    return VIR_CHECKPOINT_MIRROR_NONE;
}

gboolean
virCheckpointEngineHidesJob(virCheckpointEngine *engine,
                            const gchar *uuid,
                            const gchar *disk)
{
    return FALSE;
}

gboolean
virCheckpointEngineHasMirror(virCheckpointEngine *engine,
                             const gchar *uuid,
                             const gchar *disk)
{
    return FALSE;
}
