/*
 * checkpoint_dispatch_health.c: monitor commands that are answered by us
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What has no call in libvirt's API travels as virDomainQemuMonitorCommand with an
 * "execute" of our own, "virtcheckpoint-...": every binding has that call.  Good
 * answers look like QEMU's, {"return": ...}; failures are libvirt errors, so that they
 * have codes.
 *
 * Rights are those of the call: libvirt wants a read-write connection and, with access
 * control, "write" on the domain, whatever the monitor command says.  So that is asked,
 * with a text that libvirt authorises and then cannot parse.  Everything else, monitor
 * commands for QEMU included, is passed on.
 */

#include "config.h"

#include "checkpoint_dispatchpriv.h"
#include "checkpoint_error.h"
#include "checkpoint_heal.h"
#include "checkpoint_health.h"

#include <libvirt/virterror.h>
#include <string.h>

#define VIR_CHECKPOINT_COMMAND_PREFIX "virtcheckpoint-"
/** No JSON. */
#define VIR_CHECKPOINT_RIGHTS_NO_COMMAND "x"
/** VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP */
#define VIR_CHECKPOINT_COMMAND_HMP 1

/** @arguments: (nullable) an object. */
typedef virCheckpointJson *(*virCheckpointCommandFunc)(
    virCheckpointEngine *engine,
    const gchar *uuid,
    const virCheckpointJson *arguments,
    GError **error);

typedef struct virCheckpointCommand {
    const gchar *name;           /* after the prefix */
    const gchar *const *members; /* arguments that it takes */
    virCheckpointCommandFunc run;
} virCheckpointCommand;

static virCheckpointJson *
virCheckpointCommandCheck(virCheckpointEngine *engine,
                          const gchar *uuid,
                          const virCheckpointJson *arguments,
                          GError **error)
{
    return virCheckpointEngineCheck(engine, uuid, error);
}

static virCheckpointJson *
virCheckpointCommandRepair(virCheckpointEngine *engine,
                           const gchar *uuid,
                           const virCheckpointJson *arguments,
                           GError **error)
{
    return virCheckpointEngineRepair(engine, uuid, error);
}

static virCheckpointJson *
virCheckpointCommandJobError(virCheckpointEngine *engine,
                             const gchar *uuid,
                             const virCheckpointJson *arguments,
                             GError **error)
{
    return virCheckpointEngineMirrorError(
        engine, uuid, virCheckpointJsonGetString(arguments, "disk"), error);
}

static virCheckpointJson *
virCheckpointCommandHeal(virCheckpointEngine *engine,
                         const gchar *uuid,
                         const virCheckpointJson *arguments,
                         GError **error)
{
    const virCheckpointHealRequest request = {
        .disk = virCheckpointJsonGetString(arguments, "disk"),
        .against = virCheckpointJsonGetString(arguments, "against"),
        .checkpoint = virCheckpointJsonGetString(arguments, "checkpoint"),
    };

    if (!request.disk || !request.against) {
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                            "virtcheckpoint-heal needs 'disk' and 'against'");
        return NULL;
    }
    return virCheckpointEngineHeal(engine, uuid, &request, error)
               ? virCheckpointJsonNewObject()
               : NULL;
}

static const gchar *
virCheckpointCommandDisk(const virCheckpointJson *arguments, GError **error)
{
    const gchar *disk = virCheckpointJsonGetString(arguments, "disk");

    if (!disk)
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                            "'disk' is missing");
    return disk;
}

static virCheckpointJson *
virCheckpointCommandQueryHeal(virCheckpointEngine *engine,
                              const gchar *uuid,
                              const virCheckpointJson *arguments,
                              GError **error)
{
    const gchar *disk = virCheckpointCommandDisk(arguments, error);

    return disk ? virCheckpointEngineHealQuery(engine, uuid, disk, error) : NULL;
}

static virCheckpointJson *
virCheckpointCommandCancelHeal(virCheckpointEngine *engine,
                               const gchar *uuid,
                               const virCheckpointJson *arguments,
                               GError **error)
{
    const gchar *disk = virCheckpointCommandDisk(arguments, error);

    return disk && virCheckpointEngineHealCancel(engine, uuid, disk, error)
               ? virCheckpointJsonNewObject()
               : NULL;
}

static const gchar *const virCheckpointCommandNothing[] = {NULL};
static const gchar *const virCheckpointCommandOfDisk[] = {"disk", NULL};
static const gchar *const virCheckpointCommandOfHeal[] = {"disk", "against",
                                                          "checkpoint", NULL};

static const virCheckpointCommand virCheckpointCommands[] = {
    {"check", virCheckpointCommandNothing, virCheckpointCommandCheck},
    {"repair", virCheckpointCommandNothing, virCheckpointCommandRepair},
    {"job-error", virCheckpointCommandOfDisk, virCheckpointCommandJobError},
    {"heal", virCheckpointCommandOfHeal, virCheckpointCommandHeal},
    {"query-heal", virCheckpointCommandOfDisk, virCheckpointCommandQueryHeal},
    {"cancel-heal", virCheckpointCommandOfDisk, virCheckpointCommandCancelHeal},
};

static const virCheckpointCommand *
virCheckpointCommandFind(const gchar *execute)
{
    gsize i;

    execute += strlen(VIR_CHECKPOINT_COMMAND_PREFIX);
    for (i = 0; i < G_N_ELEMENTS(virCheckpointCommands); i++) {
        if (g_str_equal(virCheckpointCommands[i].name, execute))
            return &virCheckpointCommands[i];
    }
    return NULL;
}

/* What is not understood is refused, as QEMU does. */
static gboolean
virCheckpointCommandCheckArguments(const virCheckpointCommand *command,
                                   const virCheckpointJson *arguments,
                                   GError **error)
{
    gsize i;

    if (arguments &&
        virCheckpointJsonGetType(arguments) != VIR_CHECKPOINT_JSON_OBJECT) {
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                            "'arguments' is not an object");
        return FALSE;
    }
    for (i = 0; i < virCheckpointJsonLength(arguments); i++) {
        const gchar *key = virCheckpointJsonKey(arguments, i);

        if (g_strv_contains(command->members, key) &&
            virCheckpointJsonString(virCheckpointJsonMember(arguments, i)))
            continue;
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                    "parameter '%s' of %s%s is unexpected or not a string", key,
                    VIR_CHECKPOINT_COMMAND_PREFIX, command->name);
        return FALSE;
    }
    return TRUE;
}

/* The command of ours in @text, or NULL; @execute is borrowed from it. */
static virCheckpointJson *
virCheckpointCommandParse(const gchar *text, const gchar **execute)
{
    g_autoptr(virCheckpointJson) json = virCheckpointJsonParse(text, -1, NULL);

    *execute = virCheckpointJsonGetString(json, "execute");
    if (!*execute || !g_str_has_prefix(*execute, VIR_CHECKPOINT_COMMAND_PREFIX))
        return NULL;
    return g_steal_pointer(&json);
}

gboolean
virCheckpointDispatchCommandWanted(virCheckpointDispatch *dispatch,
                                   const virCheckpointFrame *frame)
{
    g_auto(virCheckpointProtoDomainTextFlags) args = {0};

    return virCheckpointCallDecode(virCheckpointProtoDomainTextFlags, frame, &args) &&
           !(args.flags & VIR_CHECKPOINT_COMMAND_HMP) &&
           strstr(args.text, VIR_CHECKPOINT_COMMAND_PREFIX);
}

/* Libvirt 9.0.0 looks past the ACL whether the domain runs, then parses. */
static gboolean
virCheckpointCommandPermits(const virCheckpointProtoError *error)
{
    const gchar *detail = virCheckpointWireOptString(error->str2);
    const gchar *format = virCheckpointWireOptString(error->str1);

    if (error->code == VIR_ERR_OPERATION_INVALID)
        return detail && g_str_has_prefix(detail, "domain is not running");
    return error->code == VIR_ERR_INTERNAL_ERROR &&
           ((detail && strstr(detail, "cannot parse json")) ||
            (format && strstr(format, "cannot parse json")));
}

static gboolean
virCheckpointCommandAllowed(virCheckpointCall *call,
                            const virCheckpointProtoDomainTextFlags *args)
{
    virCheckpointProtoDomainTextFlags ask = *args;
    g_autoptr(virCheckpointFrame) answer = NULL;
    g_autoptr(GBytes) bytes = NULL;

    ask.text = (gchar *)VIR_CHECKPOINT_RIGHTS_NO_COMMAND;
    bytes = virCheckpointWireEncode(virCheckpointProtoDomainTextFlags, &ask);
    answer =
        virCheckpointClientAsk(call->client, VIR_CHECKPOINT_PROGRAM_QEMU,
                               VIR_CHECKPOINT_QEMU_PROC_MONITOR_COMMAND,
                               g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes));
    return virCheckpointRightsJudge(call, answer, virCheckpointCommandPermits);
}

static void
virCheckpointCommandAnswer(virCheckpointCall *call, virCheckpointJson *value)
{
    g_autoptr(virCheckpointJson) reply =
        virCheckpointJsonBuild("a:return", value, NULL);
    g_autofree gchar *text = virCheckpointJsonFormat(reply);
    virCheckpointProtoText answer = {.text = text};

    virCheckpointCallReply(virCheckpointProtoText, call, &answer);
}

void
virCheckpointDispatchCommand(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoDomainTextFlags) args = {0};
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];
    g_autoptr(virCheckpointJson) json = NULL;
    const virCheckpointCommand *command;
    const virCheckpointJson *arguments;
    const gchar *execute = NULL;
    virCheckpointJson *value;
    g_autoptr(GError) error = NULL;

    if (!virCheckpointCallDecode(virCheckpointProtoDomainTextFlags, call->frame,
                                 &args) ||
        !(json = virCheckpointCommandParse(args.text, &execute))) {
        virCheckpointCallForward(call);
        return;
    }
    if (!virCheckpointCommandAllowed(call, &args))
        return;
    if (!(command = virCheckpointCommandFind(execute))) {
        virCheckpointCallFail(call, VIR_CHECKPOINT_FROM_QEMU, VIR_ERR_NO_SUPPORT,
                              "virtcheckpointd has no command '%s'", execute);
        return;
    }
    arguments = virCheckpointJsonGet(json, "arguments");
    virCheckpointWireUuidFormat(args.dom.uuid, uuid);
    if (virCheckpointCommandCheckArguments(command, arguments, &error) &&
        (value = command->run(call->engine, uuid, arguments, &error)))
        virCheckpointCommandAnswer(call, value);
    else
        virCheckpointCallFailError(call, VIR_CHECKPOINT_FROM_QEMU, error);
}
