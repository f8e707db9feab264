/*
 * checkpoint_dispatch_backup.c: backups through us
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A backup that names no checkpoint and makes none is passed on.  Else the engine
 * prepares what libvirt needs to know of our checkpoints, and the backup is begun by a
 * call over the client's own connection: so libvirt judges the client's rights, and
 * its answer is the client's answer.  Before anything is prepared libvirt is asked
 * whether the client may back up at all.
 *
 * For the length of a call libvirt knows our checkpoints under names that no client is
 * to see: they are translated in errors and in the XML of the job, and left out of
 * lists and look-ups (virCheckpointBackupIsOurName).
 */

#include "config.h"

#include "checkpoint_dispatchpriv.h"

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <string.h>

/** A call under way, and libvirt's answer to the one that stands for it. */
typedef struct virCheckpointBackupCall {
    virCheckpointCall *call;
    const virCheckpointProtoBackup *args;
    virCheckpointFrame *answer;
} virCheckpointBackupCall;

gboolean
virCheckpointDispatchBackupWanted(virCheckpointDispatch *dispatch,
                                  const virCheckpointFrame *frame)
{
    g_auto(virCheckpointProtoBackup) args = {0};

    if (!virCheckpointCallDecode(virCheckpointProtoBackup, frame, &args))
        return FALSE;
    return virCheckpointWireOptString(args.checkpoint) ||
           strstr(args.xml, "incremental") ||
           virCheckpointDispatchGuardWanted(dispatch, frame);
}

static virCheckpointBackupAnswer
virCheckpointDispatchBackupAsk(const gchar *xml,
                               const gchar *checkpointXml,
                               gpointer data)
{
    virCheckpointBackupCall *backup = data;
    virCheckpointProtoBackup ask = *backup->args;
    virCheckpointProtoString checkpoint = (gchar *)checkpointXml;

    ask.xml = (gchar *)xml;
    ask.checkpoint = checkpointXml ? &checkpoint : NULL;
    backup->answer = virCheckpointCallAsk(virCheckpointProtoBackup, backup->call,
                                          backup->call->frame->procedure, &ask);
    if (!backup->answer)
        return VIR_CHECKPOINT_BACKUP_UNANSWERED;
    return backup->answer->status == VIR_CHECKPOINT_FRAME_OK
               ? VIR_CHECKPOINT_BACKUP_ACCEPTED
               : VIR_CHECKPOINT_BACKUP_REFUSED;
}

/** @text with the client's names, or NULL if it is NULL. */
static gchar *
virCheckpointDispatchBackupText(const virCheckpointBackupRecord *names,
                                const virCheckpointProtoOptString text)
{
    const gchar *borrowed = virCheckpointWireOptString(text);

    return borrowed ? virCheckpointBackupTranslate(names, borrowed) : NULL;
}

/** Libvirt's error, with the client's names. */
static void
virCheckpointDispatchBackupRefused(virCheckpointCall *call,
                                   const virCheckpointFrame *answer,
                                   const virCheckpointBackupRecord *names)
{
    g_auto(virCheckpointProtoError) error = {0};
    g_autofree gchar *message = NULL;
    g_autofree gchar *detail = NULL;
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(virCheckpointFrame) translated = NULL;
    virCheckpointProtoError wire;

    if (!names || !virCheckpointCallDecode(virCheckpointProtoError, answer, &error)) {
        virCheckpointCallPass(call, answer);
        return;
    }
    message = virCheckpointDispatchBackupText(names, error.message);
    detail = virCheckpointDispatchBackupText(names, error.str2);
    wire = error;
    wire.message = message ? &message : NULL;
    wire.str2 = detail ? &detail : NULL;
    bytes = virCheckpointWireEncode(virCheckpointProtoError, &wire);
    if (bytes)
        translated = virCheckpointFrameNew(
            answer->program, answer->procedure, VIR_CHECKPOINT_FRAME_REPLY,
            answer->serial, VIR_CHECKPOINT_FRAME_ERROR, g_bytes_get_data(bytes, NULL),
            g_bytes_get_size(bytes));
    virCheckpointCallPass(call, translated ? translated : answer);
}

static gint
virCheckpointDispatchBackupFrom(const GError *error)
{
    switch (error->code) {
    case VIR_ERR_XML_ERROR:
    case VIR_ERR_XML_DETAIL:
    case VIR_ERR_XML_INVALID_SCHEMA:
        return VIR_CHECKPOINT_FROM_XML;
    case VIR_ERR_OPERATION_FAILED:
        return g_str_has_suffix(error->message, "already exists")
                   ? VIR_CHECKPOINT_FROM_DOMAIN
                   : VIR_CHECKPOINT_FROM_QEMU;
    default:
        return VIR_CHECKPOINT_FROM_QEMU;
    }
}

void
virCheckpointDispatchBackupBegin(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoBackup) args = {0};
    virCheckpointProtoBackup ask;
    virCheckpointBackupCall backup = {.call = call, .args = &args};
    g_autoptr(virCheckpointBackupRecord) names = NULL;
    g_autoptr(virCheckpointFrame) answer = NULL;
    g_autoptr(GError) error = NULL;
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];

    if (!virCheckpointCallDecode(virCheckpointProtoBackup, call->frame, &args)) {
        virCheckpointCallForward(call);
        return;
    }
    /* Disks with a mirror, or nothing for us to do: that is decided there. */
    if (virCheckpointDispatchGuardWanted(call->dispatch, call->frame) &&
        virCheckpointDispatchBackupGuard(call))
        return;
    if (!virCheckpointWireOptString(args.checkpoint) &&
        !strstr(args.xml, "incremental")) {
        virCheckpointCallForward(call);
        return;
    }
    ask = args;
    ask.xml = (gchar *)VIR_CHECKPOINT_RIGHTS_NO_XML;
    if (!virCheckpointRightsAsk(virCheckpointProtoBackup, call, call->frame->procedure,
                                &ask, virCheckpointRightsXml))
        return;
    virCheckpointWireUuidFormat(args.dom.uuid, uuid);
    switch (virCheckpointEngineBackupBegin(
        call->engine, uuid, args.xml, virCheckpointWireOptString(args.checkpoint),
        virCheckpointDispatchBackupAsk, &backup, &names, &error)) {
    case VIR_CHECKPOINT_BACKUP_NOT_OURS:
        virCheckpointCallForward(call);
        break;
    case VIR_CHECKPOINT_BACKUP_ANSWERED:
        answer = backup.answer;
        if (answer->status == VIR_CHECKPOINT_FRAME_OK)
            virCheckpointCallReplyVoid(call);
        else
            virCheckpointDispatchBackupRefused(call, answer, names);
        break;
    case VIR_CHECKPOINT_BACKUP_FAILED:
        answer = backup.answer;
        virCheckpointCallFailError(call, virCheckpointDispatchBackupFrom(error), error);
        break;
    }
}

void
virCheckpointDispatchBackupGetXml(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoDomainFlags) args = {0};
    g_auto(virCheckpointProtoText) theirs = {0};
    g_autoptr(virCheckpointFrame) answer = NULL;
    g_autoptr(virCheckpointBackupRecord) names = NULL;
    g_autofree gchar *text = NULL;
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];
    virCheckpointProtoText reply;

    if (!virCheckpointCallDecode(virCheckpointProtoDomainFlags, call->frame, &args)) {
        virCheckpointCallForward(call);
        return;
    }
    if (!(answer = virCheckpointCallAsk(virCheckpointProtoDomainFlags, call,
                                        call->frame->procedure, &args)))
        return;
    virCheckpointWireUuidFormat(args.dom.uuid, uuid);
    names = virCheckpointEngineBackupNames(call->engine, uuid);
    if (!names || answer->status != VIR_CHECKPOINT_FRAME_OK ||
        !virCheckpointCallDecode(virCheckpointProtoText, answer, &theirs)) {
        virCheckpointCallPass(call, answer);
        return;
    }
    text = virCheckpointBackupTranslate(names, theirs.text);
    reply.text = text;
    virCheckpointCallReply(virCheckpointProtoText, call, &reply);
}

void
virCheckpointDispatchHideTheirs(virCheckpointProtoList *list)
{
    guint kept = 0;
    guint i;

    for (i = 0; i < list->checkpoints.checkpoints_len; i++) {
        virCheckpointProtoCheckpoint *one = &list->checkpoints.checkpoints_val[i];
        virCheckpointProtoCheckpoint moved = *one;

        memset(one, 0, sizeof(*one));
        if (virCheckpointBackupIsOurName(moved.name))
            xdr_free((xdrproc_t)xdr_virCheckpointProtoCheckpoint, (char *)&moved);
        else
            list->checkpoints.checkpoints_val[kept++] = moved;
    }
    list->ret -= (gint)(list->checkpoints.checkpoints_len - kept);
    list->checkpoints.checkpoints_len = kept;
}
