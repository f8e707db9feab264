/*
 * checkpoint_dispatch_blockjob.c: block copies with our parameters, and their jobs
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A block copy with one of our typed parameters is ours; without them it is passed on,
 * unless a mirror of ours has the disk.  The parameters that libvirt knows are checked
 * by libvirt: the question that establishes the right to copy carries them.
 *
 * A pivot of libvirt's own copy or commit is held until the domain was looked at: then
 * it is known where the disk goes, should its old image be deleted at once.
 *
 * Calls about jobs are taken when a mirror of ours has the disk at the moment they
 * arrive.  When the mirror ends while they wait, the engine says so and they are passed
 * on: libvirt then has its usual answer for a disk without a job.
 *
 * An abort's answer goes through the main context, behind the events of the job's end,
 * which the engine posts there first: event, then reply, as from libvirt.
 */

#include "config.h"

#include "checkpoint_dispatchpriv.h"
#include "checkpoint_error.h"
#include "libvirt-checkpoint.h"

#include <libvirt/libvirt.h>

#define VIR_CHECKPOINT_MIB_SHIFT 20

static gboolean
virCheckpointDispatchOwnParam(const gchar *field)
{
    return g_str_equal(field, VIR_CHECKPOINT_BLOCK_COPY_BITMAP) ||
           g_str_equal(field, VIR_CHECKPOINT_BLOCK_COPY_CHECKPOINT) ||
           g_str_equal(field, VIR_CHECKPOINT_BLOCK_COPY_FINISH) ||
           g_str_equal(field, VIR_CHECKPOINT_BLOCK_COPY_VERIFY) ||
           g_str_equal(field, VIR_CHECKPOINT_BLOCK_COPY_PIVOT) ||
           g_str_equal(field, VIR_CHECKPOINT_BLOCK_COPY_END_CHECKPOINTS);
}

gboolean
virCheckpointDispatchCopyWanted(virCheckpointDispatch *dispatch,
                                const virCheckpointFrame *frame)
{
    g_auto(virCheckpointProtoCopy) args = {0};
    guint i;

    if (!virCheckpointCallDecode(virCheckpointProtoCopy, frame, &args))
        return FALSE;
    for (i = 0; i < args.params.params_len; i++) {
        if (virCheckpointDispatchOwnParam(args.params.params_val[i].field))
            return TRUE;
    }
    return virCheckpointDispatchMoveWanted(dispatch, frame);
}

/** Names of virTypedParameterType, as in libvirt's messages. */
static const gchar *
virCheckpointDispatchTypeName(gint type)
{
    static const gchar *const names[] = {"unknown", "int",    "uint",    "llong",
                                         "ullong",  "double", "boolean", "string"};

    return type > 0 && type < (gint)G_N_ELEMENTS(names) ? names[type] : names[0];
}

static gboolean
virCheckpointDispatchCheckParam(const virCheckpointProtoParam *param,
                                gint type,
                                gboolean seen,
                                GError **error)
{
    if (param->value.type != type) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                    "invalid type '%s' for parameter '%s', expected '%s'",
                    virCheckpointDispatchTypeName(param->value.type), param->field,
                    virCheckpointDispatchTypeName(type));
        return FALSE;
    }
    if (seen) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                    "parameter '%s' occurs multiple times", param->field);
        return FALSE;
    }
    return TRUE;
}

/** Fills @request from @param, whose type is right or libvirt will complain of. @seen:
 * a bit for each boolean. */
static gboolean
virCheckpointDispatchCopyParam(const virCheckpointProtoParam *param,
                               virCheckpointMirrorRequest *request,
                               guint *seen,
                               GError **error)
{
    const struct {
        const gchar *name;
        gboolean *value;
    } booleans[] = {
        {VIR_CHECKPOINT_BLOCK_COPY_FINISH, &request->finish},
        {VIR_CHECKPOINT_BLOCK_COPY_VERIFY, &request->verify},
        {VIR_CHECKPOINT_BLOCK_COPY_PIVOT, &request->pivot},
        {VIR_CHECKPOINT_BLOCK_COPY_END_CHECKPOINTS, &request->endCheckpoints},
    };
    const gchar *field = param->field;
    const gchar **text = NULL;
    guint i;

    for (i = 0; i < G_N_ELEMENTS(booleans); i++) {
        if (!g_str_equal(field, booleans[i].name))
            continue;
        if (!virCheckpointDispatchCheckParam(param, VIR_TYPED_PARAM_BOOLEAN,
                                             (*seen & (1U << i)) != 0, error))
            return FALSE;
        *seen |= 1U << i;
        *booleans[i].value = param->value.virCheckpointProtoValue_u.b != 0;
        return TRUE;
    }
    if (g_str_equal(field, VIR_CHECKPOINT_BLOCK_COPY_BITMAP))
        text = &request->bitmap;
    else if (g_str_equal(field, VIR_CHECKPOINT_BLOCK_COPY_CHECKPOINT))
        text = &request->checkpoint;
    if (text) {
        if (!virCheckpointDispatchCheckParam(param, VIR_TYPED_PARAM_STRING,
                                             *text != NULL, error))
            return FALSE;
        *text = param->value.virCheckpointProtoValue_u.s;
        return TRUE;
    }
    if (g_str_equal(field, VIR_DOMAIN_BLOCK_COPY_BANDWIDTH))
        request->bandwidthBytes = param->value.virCheckpointProtoValue_u.ul;
    else if (g_str_equal(field, VIR_DOMAIN_BLOCK_COPY_GRANULARITY))
        request->granularity = param->value.virCheckpointProtoValue_u.ui;
    else if (g_str_equal(field, VIR_DOMAIN_BLOCK_COPY_BUF_SIZE))
        request->bufSize = param->value.virCheckpointProtoValue_u.ul;
    return TRUE;
}

static gboolean
virCheckpointDispatchCopyRequest(const virCheckpointProtoCopy *args,
                                 virCheckpointMirrorRequest *request,
                                 GError **error)
{
    guint seen = 0;
    guint i;

    request->disk = args->path;
    request->destXml = args->destxml;
    request->flags = args->flags;
    for (i = 0; i < args->params.params_len; i++) {
        if (!virCheckpointDispatchCopyParam(&args->params.params_val[i], request, &seen,
                                            error))
            return FALSE;
    }
    if (!request->bitmap && !request->checkpoint) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                    "parameter '%s' needs parameter '%s' or '%s'",
                    request->finish ? VIR_CHECKPOINT_BLOCK_COPY_FINISH
                                    : VIR_CHECKPOINT_BLOCK_COPY_VERIFY,
                    VIR_CHECKPOINT_BLOCK_COPY_BITMAP,
                    VIR_CHECKPOINT_BLOCK_COPY_CHECKPOINT);
        return FALSE;
    }
    if (request->bitmap && !(request->flags & VIR_DOMAIN_BLOCK_COPY_REUSE_EXT)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                    "parameter '%s' needs flag VIR_DOMAIN_BLOCK_COPY_REUSE_EXT: the "
                    "target must exist and hold the disk as of that checkpoint",
                    VIR_CHECKPOINT_BLOCK_COPY_BITMAP);
        return FALSE;
    }
    return TRUE;
}

/** The question whether the client may copy, with the parameters that libvirt knows. */
static gboolean
virCheckpointDispatchCopyRights(virCheckpointCall *call,
                                const virCheckpointProtoCopy *args)
{
    virCheckpointProtoParam known[VIR_CHECKPOINT_PROTO_PARAMS_MAX];
    virCheckpointProtoCopy ask = *args;
    guint i;

    ask.path = (gchar *)VIR_CHECKPOINT_RIGHTS_NO_DISK;
    ask.destxml = (gchar *)VIR_CHECKPOINT_RIGHTS_NO_XML;
    ask.params.params_val = known;
    ask.params.params_len = 0;
    for (i = 0; i < args->params.params_len; i++) {
        if (!virCheckpointDispatchOwnParam(args->params.params_val[i].field))
            known[ask.params.params_len++] = args->params.params_val[i];
    }
    return virCheckpointRightsAsk(virCheckpointProtoCopy, call,
                                  VIR_CHECKPOINT_PROC_BLOCK_COPY, &ask,
                                  virCheckpointRightsXml);
}

/** The event path need not ask any more whether the client may see the domain. */
static void
virCheckpointDispatchLearn(virCheckpointCall *call, const virCheckpointProtoUuid uuid)
{
    g_auto(virCheckpointProtoDomainArgs) now = {0};

    virCheckpointEventsLearn(call, uuid, virCheckpointCallDomain(call, uuid, &now));
}

void
virCheckpointDispatchBlockCopy(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoCopy) args = {0};
    virCheckpointMirrorRequest request = {0};
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];
    g_autoptr(GError) error = NULL;
    gboolean ours = FALSE;
    guint i;

    if (!virCheckpointCallDecode(virCheckpointProtoCopy, call->frame, &args)) {
        virCheckpointCallForward(call);
        return;
    }
    for (i = 0; i < args.params.params_len; i++)
        ours |= virCheckpointDispatchOwnParam(args.params.params_val[i].field);
    if (!ours) {
        virCheckpointDispatchMove(call);
        return;
    }
    if (!virCheckpointDispatchCopyRights(call, &args))
        return;
    virCheckpointDispatchLearn(call, args.dom.uuid);
    if (!virCheckpointDispatchCopyRequest(&args, &request, &error)) {
        virCheckpointCallFailError(call, VIR_CHECKPOINT_FROM_NONE, error);
        return;
    }
    virCheckpointWireUuidFormat(args.dom.uuid, uuid);
    if (virCheckpointEngineMirrorStart(call->engine, uuid, &request, &error))
        virCheckpointCallReplyVoid(call);
    else
        virCheckpointCallFailError(call, VIR_CHECKPOINT_FROM_QEMU, error);
}

gboolean
virCheckpointDispatchJobWanted(virCheckpointDispatch *dispatch,
                               const virCheckpointFrame *frame)
{
    g_auto(virCheckpointProtoDomainText) args = {0};
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];

    /* Domain and disk come first in all of them. */
    if (!virCheckpointCallDecode(virCheckpointProtoDomainText, frame, &args))
        return FALSE;
    virCheckpointWireUuidFormat(args.dom.uuid, uuid);
    return virCheckpointEngineHasMirror(dispatch->engine, uuid, args.text);
}

gboolean
virCheckpointDispatchAbortWanted(virCheckpointDispatch *dispatch,
                                 const virCheckpointFrame *frame)
{
    g_auto(virCheckpointProtoDomainTextFlags) args = {0};

    if (!virCheckpointCallDecode(virCheckpointProtoDomainTextFlags, frame, &args))
        return FALSE;
    return virCheckpointDispatchJobWanted(dispatch, frame) ||
           ((args.flags & VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT) &&
            virCheckpointDispatchMoveWanted(dispatch, frame));
}

/** bytes/s, or MiB/s rounded up: libvirt's unit without the flag. */
static guint64
virCheckpointDispatchBandwidth(guint64 bytes, guint flags)
{
    if (flags & VIR_DOMAIN_BLOCK_JOB_INFO_BANDWIDTH_BYTES)
        return bytes;
    return (bytes >> VIR_CHECKPOINT_MIB_SHIFT) +
           ((bytes & ((1u << VIR_CHECKPOINT_MIB_SHIFT) - 1)) ? 1 : 0);
}

void
virCheckpointDispatchJobInfo(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoDomainTextFlags) args = {0};
    virCheckpointProtoDomainTextFlags ask;
    virCheckpointProtoJobInfo reply = {.found = 1};
    virDomainBlockJobInfo info = {0};
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];
    g_autoptr(GError) error = NULL;

    if (!virCheckpointCallDecode(virCheckpointProtoDomainTextFlags, call->frame,
                                 &args)) {
        virCheckpointCallForward(call);
        return;
    }
    ask = args;
    ask.text = (gchar *)VIR_CHECKPOINT_RIGHTS_NO_DISK;
    if (!virCheckpointRightsAsk(virCheckpointProtoDomainTextFlags, call,
                                call->frame->procedure, &ask, virCheckpointRightsDisk))
        return;
    virCheckpointWireUuidFormat(args.dom.uuid, uuid);
    switch (
        virCheckpointEngineMirrorInfo(call->engine, uuid, args.text, &info, &error)) {
    case VIR_CHECKPOINT_MIRROR_NONE:
        virCheckpointCallForward(call);
        break;
    case VIR_CHECKPOINT_MIRROR_OURS:
        reply.type = info.type;
        reply.bandwidth = virCheckpointDispatchBandwidth(info.bandwidth, args.flags);
        reply.cur = info.cur;
        reply.end = info.end;
        virCheckpointCallReply(virCheckpointProtoJobInfo, call, &reply);
        break;
    case VIR_CHECKPOINT_MIRROR_ERROR:
        virCheckpointCallFailError(call, VIR_CHECKPOINT_FROM_QEMU, error);
        break;
    }
}

void
virCheckpointDispatchJobSetSpeed(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoDomainRate) args = {0};
    virCheckpointProtoDomainRate ask;
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];
    g_autoptr(GError) error = NULL;
    guint64 bytes;

    if (!virCheckpointCallDecode(virCheckpointProtoDomainRate, call->frame, &args)) {
        virCheckpointCallForward(call);
        return;
    }
    ask = args;
    ask.path = (gchar *)VIR_CHECKPOINT_RIGHTS_NO_DISK;
    if (!virCheckpointRightsAsk(virCheckpointProtoDomainRate, call,
                                call->frame->procedure, &ask, virCheckpointRightsDisk))
        return;
    bytes = args.value;
    if (!(args.flags & VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES)) {
        if (bytes > (guint64)G_MAXINT64 >> VIR_CHECKPOINT_MIB_SHIFT) {
            virCheckpointCallFail(call, VIR_CHECKPOINT_FROM_QEMU, VIR_ERR_OVERFLOW,
                                  "bandwidth must be less than %" G_GUINT64_FORMAT,
                                  (guint64)G_MAXINT64 >> VIR_CHECKPOINT_MIB_SHIFT);
            return;
        }
        bytes <<= VIR_CHECKPOINT_MIB_SHIFT;
    }
    virCheckpointWireUuidFormat(args.dom.uuid, uuid);
    switch (virCheckpointEngineMirrorSetSpeed(call->engine, uuid, args.path, bytes,
                                              &error)) {
    case VIR_CHECKPOINT_MIRROR_NONE:
        virCheckpointCallForward(call);
        break;
    case VIR_CHECKPOINT_MIRROR_OURS:
        virCheckpointCallReplyVoid(call);
        break;
    case VIR_CHECKPOINT_MIRROR_ERROR:
        virCheckpointCallFailError(call, VIR_CHECKPOINT_FROM_QEMU, error);
        break;
    }
}

void
virCheckpointDispatchJobAbort(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoDomainTextFlags) args = {0};
    virCheckpointProtoDomainTextFlags ask;
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];
    g_autoptr(GError) error = NULL;

    if (!virCheckpointCallDecode(virCheckpointProtoDomainTextFlags, call->frame,
                                 &args)) {
        virCheckpointCallForward(call);
        return;
    }
    virCheckpointWireUuidFormat(args.dom.uuid, uuid);
    if (!virCheckpointEngineHasMirror(call->engine, uuid, args.text)) {
        if (args.flags & VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
            virCheckpointEngineBeforeJob(call->engine, uuid);
        virCheckpointCallForward(call);
        return;
    }
    ask = args;
    ask.text = (gchar *)VIR_CHECKPOINT_RIGHTS_NO_DISK;
    if (!virCheckpointRightsAsk(virCheckpointProtoDomainTextFlags, call,
                                call->frame->procedure, &ask, virCheckpointRightsDisk))
        return;
    virCheckpointDispatchLearn(call, args.dom.uuid);
    switch (virCheckpointEngineMirrorAbort(call->engine, uuid, args.text, args.flags,
                                           &error)) {
    case VIR_CHECKPOINT_MIRROR_NONE:
        virCheckpointCallForward(call);
        break;
    case VIR_CHECKPOINT_MIRROR_OURS:
        call->afterEvents = TRUE;
        virCheckpointCallReplyVoid(call);
        break;
    case VIR_CHECKPOINT_MIRROR_ERROR:
        call->afterEvents = TRUE;
        virCheckpointCallFailError(call, VIR_CHECKPOINT_FROM_QEMU, error);
        break;
    }
}
